"""The list of shipped models and their cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthogan.cli.main import main
from orthogan.models.card import Card, Facts, ScoreOfCard

SCORE = ScoreOfCard(
    label="FD[tiny]", value=84.125, std=2.0, protocol={"samples": 10_000, "weights": "ema", "reference": "faces, 50000"}
)
FACTS = Facts(
    summary="Portraits that a test made up",
    resolution=32,
    channels=1,
    parameters={"generator": 1_230_000, "discriminator": 456_000},
    latent_dim=8,
    step=3,
    images=48,
    scores=[SCORE],
)


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shipped models: a folder with a card, and a file without."""
    folder = tmp_path / "shelf" / "made-up"
    folder.mkdir(parents=True)
    (folder / "generator.safetensors").write_bytes(b"0" * 2_000_000)
    (folder / "discriminator.safetensors").write_bytes(b"0" * 1_500_000)
    (folder / "README.md").write_text(Card("# made-up\n\nA text.\n", {"license": "mit"}, FACTS).markdown())
    (tmp_path / "shelf" / "old.safetensors").write_bytes(b"0" * 100_000)
    monkeypatch.setattr("orthogan.models.shipped.shipped_folder", lambda: tmp_path / "shelf")
    monkeypatch.chdir(tmp_path)


def test_the_table_has_what_a_reader_chooses_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("made-up"))
    for cell in ("Portraits that a test made up", "32 px, gray", "G 1.23 M, D 0.46 M", "FD[tiny] 84.12 ± 2", "3.5 MB"):
        assert cell in row
    assert "10,000 fakes, EMA" in out
    assert any(line.startswith("old ") and line.endswith("0.1 MB") for line in out.splitlines())


def test_a_narrow_terminal_gets_lines_that_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["models"]) == 0
    models = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert max(map(len, models)) <= 50
    first = [
        "made-up",
        "  Portraits that a test made up",
        "  32 px, gray; G 1.23 M, D 0.46 M; 3.5 MB",
        "  FD[tiny] 84.12 ± 2",
    ]
    assert models[:4] == first
    assert models[-2:] == ["old", "  0.1 MB"]


def test_a_name_prints_the_card_and_where_the_files_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["models", "made-up"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# made-up\n\nA text.\n")
    assert f"Files: {tmp_path / 'shelf' / 'made-up'}" in out
    assert main(["models", "old"]) == 0
    assert "old has no card" in capsys.readouterr().out.replace(".safetensors", "")


def test_a_mistyped_name_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mad-up"]) == 2
    assert "did you mean 'made-up'?" in capsys.readouterr().err
    assert main(["models", "zzzz"]) == 2
    assert "there are made-up, old" in capsys.readouterr().err
