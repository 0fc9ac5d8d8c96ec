"""Print the code that makes a shell complete the commands, options and names of orthogan.

For bash and zsh add `eval "$(orthogan completion bash)"` to ~/.bashrc or ~/.zshrc (with the name of the shell); for
fish add `orthogan completion fish | source` to ~/.config/fish/config.fish.

Example: orthogan completion bash
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"), help="the shell")


def run(arguments: Namespace) -> None:
    """Print the code."""
    import argcomplete

    print(argcomplete.shellcode(["orthogan"], shell=arguments.shell))  # pyright: ignore[reportPrivateImportUsage]
