"""Exit codes of a command, and the exceptions that lead to them."""

from __future__ import annotations

from pathlib import Path

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_DIVERGED = 3
EXIT_STOPPED = 4
EXIT_INTERRUPTED = 130  # by a second Ctrl-C, or outside the training loop
EXIT_TERMINATED = 143  # by SIGTERM, in commands other than train
EXIT_HUNG_UP = 129  # the terminal was closed (SIGHUP), in commands other than train


class UserError(Exception):
    """Invalid input; the message names the file, key or value and how to fix it.

    Example:
        >>> import orthogan
        >>> from orthogan.errors import UserError
        >>> try:
        ...     orthogan.load("no-such-run")
        ... except UserError as error:
        ...     print(error.exit_code)
        2
    """

    exit_code = EXIT_USER


class WrongType(UserError, TypeError):
    """An argument of a function has a wrong type; the message names the argument and what is expected.

    Example:
        >>> from orthogan.errors import UserError, WrongType
        >>> issubclass(WrongType, TypeError), issubclass(WrongType, UserError)
        (True, True)
    """


class CannotWrite(UserError):
    """A file cannot be written: the disk is full or read-only, permission is missing, …; the message names the path."""


class Diverged(Exception):
    """Training produced NaN or infinite values; the message names the phase and the tensor.

    Example:
        >>> from orthogan.errors import Diverged
        >>> Diverged.exit_code
        3
    """

    exit_code = EXIT_DIVERGED


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a closed terminal, arrived where nothing handles it."""

    def __init__(self, name: str = "SIGTERM", code: int = EXIT_TERMINATED) -> None:
        super().__init__(name)
        self.name, self.exit_code = name, code


class PeerFailed(Exception):
    """Another process of the same command failed with a bug, which it shows; the message names it."""

    exit_code = EXIT_BUG


class Stopped(Exception):
    """A signal stopped the run after its state was saved; the same command resumes it.

    Example:
        >>> from orthogan.errors import Stopped
        >>> Stopped.exit_code
        4
    """

    exit_code = EXIT_STOPPED


def install(extra: str) -> str:
    """Return the command that installs an extra of orthogan, such as ``explore``, for messages and help."""
    from importlib import metadata  # slow to import

    clone = Path(__file__).resolve().parents[1]
    if (clone / "pyproject.toml").is_file():
        return f"pip install -e '.[{extra}]' in {clone}"
    try:
        lines = metadata.requires("orthogan") or []
    except metadata.PackageNotFoundError:  # copied, not installed
        lines = []
    needed = [line.partition(";")[0].strip() for line in lines if f'extra == "{extra}"' in line]
    return f"pip install {' '.join(repr(package) for package in needed)}" if needed else f"the extra {extra!r}"
