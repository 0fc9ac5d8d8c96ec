"""What ``accelerate launch train.py CONFIG`` and ``torchrun train.py CONFIG`` start: ``orthogan train``."""

import sys

from orthogan.__main__ import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
