"""What ``accelerate launch train.py CONFIG`` and ``torchrun train.py CONFIG`` start: ``orthogan train``."""

import os
import sys

from orthogan.cli import main

if __name__ == "__main__":
    code = main(["train", *sys.argv[1:]])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # everything is closed by now, but gloo's threads sometimes abort the interpreter's own end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
