"""Print a script that lets your shell complete the commands, options and names of orthogan.

For bash add `eval "$(orthogan completion bash)"` to ~/.bashrc, for zsh the same with zsh to ~/.zshrc; for fish add
`orthogan completion fish | source` to ~/.config/fish/config.fish.

Example: orthogan completion bash
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"), help="shell to print the script for")


def run(arguments: Namespace) -> None:
    """Print the script."""
    import argcomplete

    print(argcomplete.shellcode(["orthogan"], shell=arguments.shell))  # pyright: ignore[reportPrivateImportUsage]
