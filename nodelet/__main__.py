"""`python -m burla.nodelet` is `burla-nodelet`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
