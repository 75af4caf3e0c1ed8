"""Numbers on which rooms agree that do not import each other. Pure; every room may import it."""

FRAME_BYTES_MAX = 1 << 20  # of a payload frame; heartbeats and other jobs get between two of them
FRAGMENT_BYTES = FRAME_BYTES_MAX  # of an outcome that is bigger, as it travels
VALUE_BYTES_MAX = 4 << 30  # of a function, an input or a result that is sent; not in shared memory
BUFFERS_MAX = 1 << 10  # of one value that travel beside its pickle; each begins a frame
GB = 1 << 30  # bytes; so users count memory
