"""Make ``python -m orthogan`` run the command ``orthogan``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orthogan.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (or ``argv``) and end the process."""
    Interrupts(at_once=True).begin()  # to the very end
    from orthogan.cli.main import main

    code = main(argv)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # everything is closed, but gloo's threads sometimes abort the shutdown of the interpreter
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
