"""Upload a model to the Hugging Face Hub: a run of a GAN, or a folder that orthogan package wrote.

A run becomes a folder first: both networks, a card with scores and protocols, samples and a traversal. The command
shows what it would upload, and uploads it only after you confirm, or with --yes.

Example: orthogan push runs/demo user/portraits --summary "Pixel-art portraits at 32 px"
"""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import refuse_unused
from orthogan.cli.package import add_card, write
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.models.hub import check_repo, endpoint, upload
from orthogan.models.shipped import CARD, GENERATOR, find_shipped, no_such

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser

# options of a run, whose folder and card are written first
OF_CARD = (
    *("out", "summary", "config", "machine", "license", "data_license", "data_origin", "tags", "codes", "notes"),
    *("directions", "dims", "seed", "metrics", "samples", "half"),
)


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "subject", metavar="RUN", help="run of a GAN, a checkpoint of it, or a folder written by orthogan package"
    )
    parser.add_argument("repo", metavar="USER/MODEL", help="repository on the Hub; created if it does not exist")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", help="existing branch to upload to (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit")
    parser.add_argument("--message", default="Upload an orthogan model", help="message of the commit")
    parser.add_argument("--out", help="of a run: keep its folder here")
    add_card(parser)


def run(arguments: Namespace) -> None:
    """Show what would be uploaded, and upload it after consent."""
    check_repo(arguments.repo)
    shipped = None if os.path.lexists(arguments.subject) else find_shipped(arguments.subject)
    folder = shipped or Path(arguments.subject)
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise UserError(f"{printable(folder)}: is a file; give a run, or a folder written by orthogan package")
        raise no_such(folder, "a run, a checkpoint, or a folder written by orthogan package")
    if not arguments.yes and not sys.stdin.isatty():
        raise UserError(
            "nothing was uploaded, because this is not a terminal where you can confirm; "
            "add --yes to upload without asking"
        )
    where = endpoint()
    from orthogan.models.open import open_model

    of_run = not all((folder / name).is_file() for name in (GENERATOR, CARD))
    if not of_run:
        refuse_unused(arguments, OF_CARD, f"does not apply: {arguments.subject} already has a card", f"edit its {CARD}")
    with nullcontext(arguments.out) if arguments.out or not of_run else tempfile.TemporaryDirectory() as out:
        if of_run:
            folder = write(arguments, arguments.out or os.path.join(out, "model"), name=arguments.repo)
        open_model(folder, trust=arguments.trust).generator  # noqa: B018 - damaged files are not uploaded
        files = contents(folder, arguments.repo)
        _show(arguments, where, folder, files)
        if not arguments.yes and not _confirmed():
            print("nothing was uploaded")
            return
        address = upload(
            arguments.repo,
            files,
            revision=arguments.revision,
            private=arguments.private or None,
            message=arguments.message,
            create_pr=arguments.create_pr,
        )
    print(f"uploaded: {address}")
    print(f"to use it: orthogan sample {arguments.repo}")


def contents(folder: Path, repo: str) -> dict[str, Path | bytes]:
    """Return what is uploaded of a model's folder, by name; the commands on its card name the model ``repo``."""
    from orthogan.export.package import FILES

    text = (folder / CARD).read_text(encoding="utf-8")
    for start, end in (
        ('orthogan.load("', '"'),
        ("orthogan sample ", " "),
        ("orthogan traverse ", " "),
        ("init=", "`"),
    ):
        text = text.replace(f"{start}{folder.resolve().name}{end}", f"{start}{repo}{end}")
    return {CARD: text.encode()} | {name: folder / name for name in FILES if name != CARD and (folder / name).is_file()}


def _show(arguments: Namespace, where: str, folder: Path, files: dict[str, Path | bytes]) -> None:
    from orthogan.io.terminal import text_table
    from orthogan.models.card import read_card

    block = read_card(folder / CARD).block
    rows = [
        [f"  {name}", f"{(len(part) if isinstance(part, bytes) else part.stat().st_size) / 1e3:,.1f} kB"]
        for name, part in files.items()
    ]
    access = "private" if arguments.private else "public, unless your account or organization has another default"
    print(f"{printable(folder)} -> {where}/{arguments.repo}")
    print(text_table(rows, "lr"))
    print(f"license of the weights: {printable(str(block.get('license') or 'not stated'))}")
    print(f"a new repository will be {access}")
    others = sorted(path.name for path in folder.iterdir() if path.name not in files)
    if others:
        print(f"not uploaded: {printable(', '.join(others))}")


def _confirmed() -> bool:
    try:
        return input("Type yes to upload these files: ").strip().lower() == "yes"
    except EOFError:
        return False
