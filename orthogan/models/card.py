"""Model cards: a YAML block as on the Hugging Face Hub, whose key ``orthogan`` holds the facts, and a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from orthogan.config.base import Section
from orthogan.errors import UserError
from orthogan.io.read import printable, read_regular
from orthogan.io.yaml_text import parse_yaml
from orthogan.models.shipped import CARD, shipped_models

LARGEST_CARD = 1 << 20  # bytes
# keys of a protocol in which two comparable scores may differ
INCIDENTAL = ("step", "seed", "seconds", "device", "orthogan", "torch", "torch-fidelity", "subject")


class Point(Section):
    """A score at one point of a run."""

    images: int = Field(description="real images that D has seen")
    value: float
    std: float | None = Field(default=None, description="over runs with other random seeds")


class Curve(Section):
    """A score over the course of a run; ``protocol`` is what all its points have in common."""

    label: str
    protocol: dict[str, Any]
    points: list[Point]
    runs: int = Field(default=1, description="random seeds")
    partial: bool = Field(default=False, description="the runs were stopped early: their end is not known")

    def at(self, images: int) -> Point | None:
        """Return the expected score after this many images; None before the first point.

        It is interpolated linearly in the images between two points. After the last point it is the last score, or
        None where the runs were stopped early.
        """
        before = [point for point in self.points if point.images <= images]
        after = [point for point in self.points if point.images > images]
        if not before or (self.partial and not after and images > before[-1].images):
            return None
        if not after:
            return before[-1]
        a, b = before[-1], after[0]
        share = (images - a.images) / (b.images - a.images)
        spread = None if a.std is None or b.std is None else a.std + share * (b.std - a.std)
        return Point(images=images, value=a.value + share * (b.value - a.value), std=spread)

    def differences(self, protocol: Mapping[str, Any]) -> list[str]:
        """Return how another protocol differs in what a score depends on, as ``key: here -> there``."""
        mine, theirs = comparable(self.protocol), comparable(protocol)
        return [f"{k}: {mine.get(k)} -> {theirs.get(k)}" for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]


class ScoreOfCard(Section):
    """A score of the model, with its protocol."""

    label: str
    value: float
    std: float | None = None
    parts: dict[str, float] = Field(default={})
    protocol: dict[str, Any] = Field(default={})

    def in_words(self) -> str:
        """Return the value and protocol, such as ``FD[efficientnet-lite0] 84.1 (10,000 fakes, faces-train)``."""
        spread = f" ± {self.std:.2g}" if self.std is not None else ""
        return f"{self.label} {self.value:.4g}{spread} ({fakes_in_words(self.protocol)})"


class Facts(Section):
    """The facts about the model in a card, for programs."""

    summary: str = Field(description="one sentence")
    resolution: int | tuple[int, int]
    channels: int
    classes: list[str] = Field(default=[])
    parameters: dict[str, int] = Field(description="generator, discriminator")
    latent_dim: int
    step: int = 0
    images: int = Field(default=0, description="real images that D has seen in training")
    seconds: float | None = Field(default=None, description="time of training, with its scores")
    machine: str = ""
    command: str = ""
    data: dict[str, Any] = Field(default={}, description="name, images, origin, license")
    origin: dict[str, str] = Field(
        default={}, description="of an imported model: file, sha256, layout, project, source, license"
    )
    scores: list[ScoreOfCard] = Field(default=[])
    expected: list[Curve] = Field(default=[], description="scores in the course of training")


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        block: the YAML block. ``facts``: its key ``orthogan``; None if there is none.
        text: the Markdown after the block.
    """

    text: str
    block: Mapping[str, Any] = field(default_factory=dict)
    facts: Facts | None = None

    @property
    def summary(self) -> str:
        """Return one sentence on the model: the summary of the facts, else the first sentence of the text."""
        if self.facts is not None:
            return self.facts.summary
        paragraphs = [part for part in re.split(r"\n\s*\n", self.text) if not part.startswith("#")]
        return " ".join(paragraphs[0].split()).partition(". ")[0].removesuffix(".") if paragraphs else ""

    def markdown(self) -> str:
        """Return the card as the text of a file."""
        block = dict(self.block)
        if self.facts is not None:
            block["orthogan"] = self.facts.model_dump(exclude_defaults=True)
        text = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=100)
        return f"---\n{text}---\n\n{self.text}" if block else self.text


def read_card(file: Path) -> Card:
    """Read the card in a Markdown file.

    Raises:
        UserError: it cannot be read, or its YAML block is not valid.
    """
    raw = read_regular(file, LARGEST_CARD)
    try:
        content = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise UserError(f"{printable(file)}: is not UTF-8 text; save it as UTF-8") from None
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if found is None:
        return Card(content)
    block = parse_yaml(found[1], file)
    if not isinstance(block, dict):
        raise UserError(f"{printable(file)}: the YAML block must be a mapping of keys to values")
    facts = block.pop("orthogan", None)
    try:
        known = None if facts is None else Facts.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("orthogan", *first["loc"])))
        raise UserError(f"{printable(file)}: {place}: {first['msg']}") from None
    return Card(content[found.end() :].lstrip("\n"), block, known)


def card_file(model: Path) -> Path:
    """Return the path of a model's card: in its folder, or beside its file."""
    return model / CARD if model.is_dir() else model.with_suffix(".md")


def card_of(model: Path) -> Card:
    """Read a model's card; an empty one if it has none. Raises ``UserError`` as ``read_card``."""
    file = card_file(model)
    return read_card(file) if file.is_file() else Card("")


def shipped_cards() -> Iterator[tuple[str, Path, Card]]:
    """Yield (name, file or folder, card) of every shipped model; a model without a card has an empty one."""
    for name, path in shipped_models().items():
        yield name, path, card_of(path)


def comparable(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol that two scores must share to be compared."""
    return {key: value for key, value in protocol.items() if key not in INCIDENTAL}


def fakes_in_words(protocol: Mapping[str, Any]) -> str:
    """Return the part of a protocol that must be given with every score."""
    samples = protocol.get("samples")
    count = f"{samples:,} fakes" if isinstance(samples, int) else ""
    weights = "EMA" if protocol.get("weights") == "ema" else ""
    return ", ".join(str(part) for part in (count, weights, protocol.get("reference", "")) if part)


def usage(name: str, *, conditional: bool) -> str:
    """Return the part of a card that shows how to use the model, in Markdown."""
    labels = ", labels" if conditional else ""
    drawn = "labels = torch.arange(16) % generator.num_classes\n" if conditional else ""
    return f"""```python
{"import torch" + chr(10) + chr(10) if conditional else ""}import orthogan

generator = orthogan.load("{name}")
{drawn}images = generator(generator.sample_latent(16, seed=0){labels})  # (16, channels, height, width) in [-1, 1]
```

```bash
orthogan sample {name} --out samples.png
orthogan traverse {name} --out traversal.html
```

To fine-tune it, set `model.init={name}` in a config with the same nets: both start from these weights."""
