"""``python -m orthogan`` is the command ``orthogan``."""

import sys

from orthogan.cli import main

if __name__ == "__main__":
    sys.exit(main())
