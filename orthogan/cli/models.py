"""List the models that ship with orthogan, or print the card of one.

Example: orthogan models sprites-sngan
"""

from __future__ import annotations

import shutil
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.errors import UserError
from orthogan.io.read import shown
from orthogan.models.shipped import find_shipped, other_shipped, shipped_names
from orthogan.size import color_in_words, size_in_words

if TYPE_CHECKING:
    from orthogan.cli.parser import Parser
    from orthogan.models.card import Card, ScoreOfCard

WIDTH = 44  # of a column of text [characters]


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    parser.add_names("name", nargs="?", metavar="NAME", names=shipped_names, help="shipped model: {names}")


def run(arguments: Namespace) -> None:
    """Print the table, or a card."""
    from orthogan.models.card import card_file, read_card, shipped_cards

    if arguments.name is None:
        _print_table([(name, path, card) for name, path, card in shipped_cards()])
        return
    found = find_shipped(arguments.name)
    if found is None:
        from orthogan.registry import did_you_mean

        names = shipped_names()
        hint = did_you_mean(arguments.name, names) or f"; there are {', '.join(names)}"
        raise UserError(f"there is no shipped model {shown(arguments.name)}{hint}")
    file = card_file(found)
    print(read_card(file).text.rstrip() if file.is_file() else f"{found.name} has no card")
    print(f"\nFiles: {found}")
    if hidden := other_shipped(arguments.name):
        print(f"Commands open {arguments.name} in the current folder instead; for this model, give them {hidden}")


def _print_table(models: list[tuple[str, Path, Card]]) -> None:
    from orthogan.io.terminal import text_table

    rows = []
    for name, path, card in models:
        facts = card.facts
        size = f"{sum(file.stat().st_size for file in _weights(path)) / 1e6:.1f} MB"
        cells = [name, textwrap.fill(card.summary, WIDTH), "", "", "", size]
        if facts is not None:
            cells[2] = f"{size_in_words(facts.resolution)} px, {color_in_words(facts.channels)}"
            cells[3] = ", ".join(f"{net[0].upper()} {count / 1e6:.2f} M" for net, count in facts.parameters.items())
            cells[4] = _scores(facts.scores)
        rows.append(cells)
    table = text_table(rows, "llllll", ["NAME", "WHAT", "IMAGES", "PARAMETERS", "SCORE", "SIZE"])
    columns = shutil.get_terminal_size((len(table), 0)).columns  # a file or a pipe has room for all
    narrow = max(map(len, table.splitlines())) > columns
    print("\n".join(_in_lines(row, columns) for row in rows) if narrow else table)
    print("\n`orthogan models NAME` prints the card. Every command that takes a model takes these names.")


def _in_lines(row: Sequence[str], columns: int) -> str:
    """A row of the table below each other, for a narrow terminal."""
    name, what, images, parameters, scores, size = row
    parts = [what.replace("\n", " "), "; ".join(filter(None, (images, parameters, size))), *scores.splitlines()]
    lines = (textwrap.fill(part, max(20, columns), initial_indent="  ", subsequent_indent="    ") for part in parts)
    return "\n".join([name, *filter(None, lines)])


def _scores(scores: list[ScoreOfCard]) -> str:
    """The scores, one per line, above the protocol that they have in common."""
    from orthogan.models.card import fakes_in_words

    groups: dict[str, list[str]] = {}
    for score in scores:
        words = fakes_in_words(score.protocol)
        groups.setdefault(words, []).append(score.in_words().removesuffix(f" ({words})"))
    return "\n".join("\n".join([*lines, textwrap.fill(f"({words})", WIDTH)]) for words, lines in groups.items())


def _weights(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
