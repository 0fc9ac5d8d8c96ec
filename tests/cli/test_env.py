"""What a bug report needs: versions, devices, and which weights are where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import orthogan
from orthogan.cli import env
from orthogan.cli.main import main
from orthogan.evaluation.extractors.extractor import EXTRACTORS
from orthogan.models import shipped_names


def test_the_report_names_versions_devices_weights_and_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTHOGAN_PRETRAINED", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    name = "vgg16-397923af.pth"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_bytes(b"damaged")
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert found["orthogan"]["version"] == orthogan.__version__
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["devices"]["cpu"]
    weights = found["weights of feature extractors"]
    assert list(weights) == list(EXTRACTORS)
    assert weights["efficientnet-lite0"]["state"] == "part of the installation"
    assert weights["vgg16"]["state"] == "damaged"
    assert str(tmp_path / "mine" / name) in weights["vgg16"]["problem"]
    assert name in weights["vgg16"]["to get them"]
    assert set(found["shipped models"]) == set(shipped_names())
    assert found["environment variables"]["ORTHOGAN_PRETRAINED"] == str(tmp_path / "mine")
    assert "secret" not in text


def test_the_text_says_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements = {
        "": ["torch", "no-such-package"],
        "video": ["av", "no-such-package"],
        "dev": ["for-developers"],
    }
    monkeypatch.setattr(env, "_requirements", lambda: requirements)
    monkeypatch.setattr("orthogan.evaluation.extractors.weights_files.find_weights", lambda *_: None)
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "no-such-package  missing" in text
    assert "to install it: pip install -e '.[video]'" in text
    assert "for-developers" not in text
    assert "missing\n" in text
    assert "into pretrained/" in text
