"""Numbers on which rooms agree that do not import each other. Pure; every room may import it."""

FRAME_BYTES_MAX = 1 << 20  # of a payload frame; heartbeats and other jobs get between two of them
GB = 1 << 30  # bytes; so users count memory
