"""`python -m burla.nodelet` is `burla-nodelet`."""

import gc
import sys

gc.disable()  # nothing of what is imported is ever garbage: to look for it takes a tenth of a start

from .cli import main  # noqa: E402  # while nobody looks for garbage

gc.freeze()
gc.enable()

if __name__ == "__main__":
    sys.exit(main())
