"""Writes docs/gallery.md from the shipped models and their cards; draws the pictures that a model does not bring.

python -m docs.gallery
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orthogan
from orthogan.latent import render, sample_images, save_samples, traverse
from orthogan.models.card import Card, card_file, shipped_cards

ROOT = Path(__file__).parents[1]
PAGE, IMAGES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "images"
PICTURES = ("samples", "traversal")
HEAD = """\
# Gallery

The models that ship with orthogan. `orthogan models` lists them, and each command that takes a model takes their names:

```bash
orthogan models                                  # all of them
orthogan sample {first} --seeds 0-63 --out samples.png
orthogan traverse {first} --dims 0-5 --out page.html
```

The samples are those of the first random seeds and were not selected. A row of a traversal is one latent direction; the
middle column is the unedited image. This page is written by `python -m docs.gallery` from the cards of the models.
"""


def page() -> str:
    """The text of the page."""
    models = list(shipped_cards())
    return "\n".join([HEAD.format(first=models[0][0]), *(line for model in models for line in section(*model))])


def section(name: str, path: Path, card: Card) -> Iterator[str]:
    """What the page says of a model."""
    yield f"## {name}\n"
    yield f"{card.summary.rstrip('.')}. [Card]({relative(card_file(path))})\n"
    if card.facts is not None:
        facts = [f"{card.facts.resolution} px", f"{card.facts.images:,} real images seen in training"]
        facts += [f"{card.facts.seconds / 3600:.1f} h on {card.facts.machine}"] if card.facts.seconds else []
        yield "- " + ", ".join(facts)
        yield from (f"- {score.in_words()}" for score in card.facts.scores)
        yield ""
    for kind in PICTURES:
        yield f"![{kind.capitalize()} of {name}]({relative(picture(path, name, kind))})\n"


def picture(path: Path, name: str, kind: str) -> Path:
    """Where the samples or the traversal of a model are: in its folder, or among the images of the docs."""
    return path / f"{kind}.png" if path.is_dir() else IMAGES / f"gallery-{name}-{kind}.png"


def relative(path: Path) -> str:
    """As a link of the page."""
    return Path(os.path.relpath(path, PAGE.parent)).as_posix()


def draw(name: str, path: Path) -> None:
    """The pictures of a model that is a single file."""
    generator = orthogan.load(name)
    save_samples(sample_images(generator, range(64)), picture(path, name, "samples"))
    eigen = "eigengan" in name  # the first of its subspaces hardly do anything
    walk = traverse(
        generator, method="native" if eigen else "sefa", dims=list(range(8, 16) if eigen else range(8)), seed=3
    )
    render(walk, picture(path, name, "traversal"))


def main() -> None:
    """Draw what is missing, and write the page."""
    for name, path, _ in shipped_cards():
        if not all(picture(path, name, kind).is_file() for kind in PICTURES):
            draw(name, path)
    used = {picture(path, name, kind).name for name, path, _ in shipped_cards() for kind in PICTURES}
    for old in IMAGES.glob("gallery-*.png"):
        if old.name not in used:
            old.unlink()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
