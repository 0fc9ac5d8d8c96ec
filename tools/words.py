"""Find words that orthogan's texts must not use: ``python tools/words.py``. The list is tools/words.txt.

It looks at comments, docstrings and messages in Python files, and at whole Markdown, YAML, HTML and text files. A line
with "words: allow" is left out.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".txt")
PLACES = (
    *("orthogan", "docs", "configs", "examples", "train.py", "README.md", "CONTRIBUTING.md"),
    *("CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md", ".github"),
)
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".html", ".txt", ".js", ".ipynb"}
# the texts of studies are stored with their results, which are published as they were written
STORED = ("docs/results", "docs/results.md", "orthogan/studies/papers", "orthogan/studies/measures.py")
ALLOWED = "words: allow"
CODE = re.compile(r"``[^`]+``|`[^`\n]+`|^ {8,}\w+(?=: )", re.MULTILINE)  # also an argument in a docstring
KEY = re.compile(r"""[a-z]?(["'])-*\w+\1""")  # a name, not a text
FIELD = re.compile(r"\{[^{}]*\}")
TEXT = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def rules(lines: Iterable[str]) -> list[tuple[re.Pattern[str], str]]:
    """(pattern, what to write) of each line "bad -> good". Raises ``ValueError`` for any other line."""
    found = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        bad, arrow, good = line.partition(" -> ")
        if not (bad.strip() and arrow and good.strip()):
            raise ValueError(f"{LIST.name}: write 'bad -> good', not {line.strip()!r}")
        pattern = re.sub(r" +", r"\\s+", bad.strip())
        found.append((re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE), good.strip()))
    return found


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(number of its first line, text): each comment and string of a Python file, or the whole of another file.

    Names in backticks, and the fields of f-strings, are blank.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield 1, blank(CODE, source)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in TEXT and not KEY.fullmatch(token.string):
            text = blank(FIELD, token.string) if "f" in token.string[:2].lower() else token.string
            yield token.start[0], blank(CODE, text)


def blank(pattern: re.Pattern[str], text: str) -> str:
    """``text`` with spaces for what ``pattern`` matches; lines stay where they are."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def problems(path: Path, known: list[tuple[re.Pattern[str], str]]) -> Iterator[str]:
    """A line "path:line: 'bad': write good" per match."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for first, text in texts(path):
        for pattern, good in known:
            for match in pattern.finditer(text):
                number = first + text.count("\n", 0, match.start())
                if ALLOWED not in lines[number - 1]:
                    yield f"{path.relative_to(ROOT)}:{number}: {' '.join(match[0].split())!r}: write {good}"


def files() -> Iterator[Path]:
    """What is looked at."""
    stored = [ROOT / place for place in STORED]
    for place in PLACES:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in SUFFIXES and not any(file.is_relative_to(one) for one in stored):
                yield file


def main() -> int:
    """Print every match; 1 if there is one."""
    known = rules(LIST.read_text(encoding="utf-8").splitlines())
    found = [problem for path in files() for problem in problems(path, known)]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
