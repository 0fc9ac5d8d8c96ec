"""What ``accelerate launch train.py CONFIG`` and ``torchrun train.py CONFIG`` start: ``orthogan train``."""

import sys

from orthogan.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
