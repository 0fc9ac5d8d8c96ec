"""Configs are found by path, and by name where there is no such file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orthogan.config.files import load_config
from orthogan.config.read import find_config, shipped_configs
from orthogan.errors import UserError
from tests.fixtures.runs import ROOT


def test_a_config_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_configs() == ROOT / "configs"
    for name in ("sprites/srngan", "sprites/srngan.yaml", "configs/sprites/srngan.yaml"):
        config = load_config(name)
        assert config.out == "runs/sprites/srngan"
        assert config.training.steps == load_config(ROOT / "configs/sprites/srngan.yaml").training.steps
    Path("sprites").mkdir()
    Path("sprites/srngan.yaml").write_text("seed: 5\n")
    assert load_config("sprites/srngan.yaml").seed == 5  # a file that is there wins
    (tmp_path / "mine.yaml").write_text("base: demo\nseed: 3\n")
    assert load_config("mine.yaml").data.source == load_config("demo").data.source
    (tmp_path / "demo.yaml").write_text("seed: 4\n")  # a file beside it wins
    (tmp_path / "mine.yaml").write_text("base: demo.yaml\n")
    assert load_config("mine.yaml").seed == 4


@pytest.mark.parametrize("name", ["../configs/demo.yaml", "/nowhere/demo.yaml", "absent"])
def test_other_names_stay_what_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(Path(name)) == Path(name)


def test_a_mistyped_name_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such config file; did you mean 'sprites/srngan'"):
        load_config("sprites/srngann")
    (tmp_path / "c.yml").touch()
    with pytest.raises(UserError, match=r"c: no such config file; did you mean 'c\.yml'"):
        load_config("c")
    with pytest.raises(UserError, match=r"c\.yaml: no such config file; did you mean 'c\.yml'"):
        load_config("c.yaml")
    (tmp_path / "a b.yaml").touch()
    with pytest.raises(UserError, match=r"a b\.yaml"):
        load_config(tmp_path / "a b")
