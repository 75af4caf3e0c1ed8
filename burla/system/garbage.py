"""A moment without looks for garbage: for imports, of which nothing is ever any.

To look at what they make, again and again while they make it, takes a tenth of their time.
"""

import gc


class NoCollections:
    """Let Python look for no garbage inside the block."""

    __slots__ = ("_is_usual",)

    def __enter__(self) -> None:
        """Stop looking, unless nobody looks anyway."""
        self._is_usual = gc.isenabled()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        """Look again, if that is usual."""
        if self._is_usual:
            gc.enable()
