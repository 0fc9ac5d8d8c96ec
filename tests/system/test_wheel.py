"""A wheel carries the shipped models and configs, which are found by name from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.fixtures.runs import ROOT, environment

pytestmark = pytest.mark.slow


def run(*words: str, cwd: Path, path: str = "") -> str:
    """What a process prints; PYTHONPATH is ``path`` alone."""
    done = subprocess.run(words, cwd=cwd, env=environment() | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_has_models_and_configs(tmp_path: Path) -> None:
    builder = str(Path(pytest.importorskip("setuptools").__file__).parents[1])
    clone = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", "weights-*")
    for name in ("orthogan", "pretrained", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=skip)
    (clone / "pretrained" / "weights-of-somebody.pth").touch()  # which must not travel
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    pip = [sys.executable, "-m", "pip"]
    offline = ["--no-deps", "--no-index"]
    run(*pip, "wheel", *offline, "--no-build-isolation", "-w", str(tmp_path), str(clone), cwd=tmp_path, path=builder)
    shutil.rmtree(clone)
    venv.create(tmp_path / "venv", with_pip=False)
    inside = tmp_path / "venv" / "bin" / "python"
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "--python", str(inside), "install", *offline, str(wheel), cwd=tmp_path)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    shelf = site / "orthogan" / "pretrained"
    assert sorted(path.relative_to(shelf) for path in shelf.rglob("*.safetensors")) == sorted(
        path.relative_to(ROOT / "pretrained") for path in (ROOT / "pretrained").rglob("*.safetensors")
    )
    assert not list(shelf.rglob("*.pth"))
    # what orthogan builds on comes from here; the package itself from the wheel
    others = sysconfig.get_paths()["purelib"]
    command = [str(inside), "-m", "orthogan"]
    assert "sprites-srngan" in run(*command, "models", cwd=tmp_path, path=others)
    assert "out: runs/sprites/srngan" in run(*command, "config", "sprites/srngan", cwd=tmp_path, path=others)
    run(*command, "sample", "sprites-srngan", "--seeds", "0-3", "--out", "four.png", cwd=tmp_path, path=others)
    assert (tmp_path / "four.png").is_file()
    where = run(str(inside), "-c", "import orthogan; print(orthogan.__file__)", cwd=tmp_path, path=others)
    assert Path(where.strip()).is_relative_to(site)
