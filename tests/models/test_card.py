"""Cards: what is written is read back, hand-made ones are read, and what makes no sense is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.models.card import Card, Curve, Facts, Point, ScoreOfCard, read_card, shipped_cards

PROTOCOL = {"samples": 100, "reference": "sprites", "weights": "ema", "seed": 0, "step": "3", "orthogan": "0.1.0"}
CURVE = Curve(
    label="FD[tiny]",
    protocol=PROTOCOL,
    points=[Point(images=0, value=100.0), Point(images=1000, value=50.0, std=2.0), Point(images=2000, value=40, std=4)],
)
FACTS = Facts(
    summary="One sentence",
    resolution=32,
    channels=3,
    classes=["cat", "no"],
    parameters={"generator": 10, "discriminator": 20},
    latent_dim=8,
    step=3,
    images=48,
    data={"license": "CC0-1.0"},
    scores=[ScoreOfCard(label="FD[tiny]", value=1 / 3, protocol=PROTOCOL)],
    expected=[CURVE],
)


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    card = Card("# name\n\nText: ä\n", {"license": "mit", "tags": ["gan", "no"]}, FACTS)
    file = tmp_path / "README.md"
    file.write_text(card.markdown(), encoding="utf-8")
    assert read_card(file) == card
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # as git writes it on Windows
    assert read_card(file) == card


def test_a_text_without_a_block_is_a_card(tmp_path: Path) -> None:
    file = tmp_path / "old.md"
    file.write_text("# name\n\nA small\nmodel. It is old.\n\nMore.\n")
    card = read_card(file)
    assert card.facts is None
    assert card.summary == "A small model"
    assert card.markdown() == file.read_text()
    assert Card("").summary == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"---\n- a\n---\ntext", "must be a mapping"),
        (b"---\na: [\n---\ntext", "README.md"),
        (b"---\northogan: {summary: 1}\n---\n", "orthogan.summary: Input should be a valid string"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_card_that_makes_no_sense_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_card(file)
    assert "README.md" in str(caught.value)


def test_a_curve_between_its_points() -> None:
    assert CURVE.at(-1) is None
    assert CURVE.at(0) == Point(images=0, value=100.0)
    middle = CURVE.at(1500)
    assert middle is not None
    assert (middle.value, middle.std) == (45.0, 3.0)
    assert CURVE.at(250) == Point(images=250, value=87.5)  # one end has no spread
    last = CURVE.at(9999)
    assert last is not None
    assert last.value == 40


def test_scores_compare_under_one_protocol_whatever_seed_and_step() -> None:
    assert CURVE.differences({**PROTOCOL, "seed": 5, "step": "9", "seconds": 3.0, "orthogan": "9"}) == []
    assert CURVE.differences({**PROTOCOL, "samples": 50}) == ["samples: 100 -> 50"]
    assert CURVE.differences({**PROTOCOL, "truncation": 0.5}) == ["truncation: None -> 0.5"]


def test_every_shipped_card_can_be_read() -> None:
    cards = list(shipped_cards())
    assert cards
    assert all(card.summary for _, _, card in cards)
