"""A dry run refuses whatever a run would refuse at its start, says how long a run takes, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.training import dry_run, train
from tests.fixtures.runs import TINY, tiny

SCORED = ["evaluation.every=1", "evaluation.samples=8", "evaluation.extractor=tests.fixtures.extractor:Moments"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a file, and a run whose only checkpoint is damaged."""
    folder = tmp_path_factory.mktemp("dry")
    train(tiny(folder / "run", "training.steps=1"))
    train(tiny(folder / "damaged", "training.steps=1"))
    for file in (folder / "damaged" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    (folder / "file").write_text("no folder", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([*SCORED, "evaluation.extractor=nope"], "nope"),
        ([*SCORED, "evaluation.extractor=os:nope"], "os:nope"),
        ([*SCORED, "evaluation.extractor=" + "a" * 255], "aaa"),
        ([*SCORED, "evaluation.metrics=[kid]", "evaluation.best=kid"], "KID"),
        ([*SCORED, "evaluation.metrics=[ppl2_wend]", "evaluation.best=ppl2_wend"], "'w'"),
        (["out={place}/file"], "file"),
        (["out={place}/file/run"], "file"),
        (["out=/proc/run"], "/proc"),
        (["out={place}/" + "x" * 300], "xxx"),
        (["out=a\x00b"], "NUL"),
        (["out={place}/run", "training.batch_size=16"], "training.batch_size"),
        (["out={place}/damaged", "training.steps=1"], "damaged"),
        (["model.generator.kind=absent:Class"], "absent"),
        (["model.generator.options.nothing=1"], "nothing"),
        (["model.init={place}/nowhere"], "nowhere"),
        (["data.source=folder", "data.path={place}/nowhere", "data.count=null"], "nowhere"),
        (["data.source=folder", "data.path=~nobody-of-that-name/x", "data.count=null"], "nobody"),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else "",
)
def test_what_a_run_refuses_at_its_start_a_dry_run_refuses_in_the_same_words(
    place: Path, tmp_path: Path, overrides: list[str], says: str
) -> None:
    words = [*TINY, "training.steps=2", f"out={tmp_path / 'new'}", *(word.format(place=place) for word in overrides)]
    said = []
    for start in (dry_run, train):
        before = sorted(path for path in place.rglob("*") if path.name != ".lock")
        with pytest.raises(UserError) as caught:
            start(load_config(None, words))
        said.append(str(caught.value))
        if start is dry_run:
            assert sorted(path for path in place.rglob("*") if path.name != ".lock") == before
            assert not (tmp_path / "new").exists()
    assert said[0] == said[1]
    assert says in said[0]


def test_a_dry_run_tells_the_time_and_writes_nothing(tmp_path: Path) -> None:
    report = dry_run(tiny(tmp_path / "run", "training.steps=7200", *SCORED))
    assert re.fullmatch(
        r"about .+ on this machine \(7,200 steps of .+ s, 7,200 scores of about .+\)",
        report["time"],
    )
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_told_from_its_files_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the data of a finished run was opened")

    config = tiny(place / "run", "training.steps=1")
    monkeypatch.setattr("orthogan.training.run.open_configured", never)
    assert train(config) == place / "run"
    for other in ("training.steps=2", "training.batch_size=4"):
        with pytest.raises((AssertionError, UserError)):
            train(tiny(place / "run", "training.steps=1", other))
    with pytest.raises((AssertionError, UserError)):  # it is damaged, whatever its last step is
        train(tiny(place / "damaged", "training.steps=1"))


@pytest.mark.parametrize("wrong", [None, 5, {"task": "gan"}], ids=str)
def test_what_is_not_a_config_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"expected a Config, .* not {type(wrong).__name__}; orthogan.load_config"):
        train(wrong)


@pytest.mark.parametrize("override", [(), ["seed=0"], {"seed": 0}])
def test_the_config_of_a_run_that_was_moved_starts_nothing(tmp_path: Path, override: Any) -> None:
    moved = tmp_path / "moved"
    (moved / "checkpoints").mkdir(parents=True)
    (moved / "config.yaml").write_text(f"out: {tmp_path / 'old'}\n")
    with pytest.raises(UserError, match=r"was moved, or started in another folder: .* Add out=.*moved to resume it"):
        train(moved / "config.yaml", override)
    assert not (tmp_path / "old").exists()
