"""``orthogan disentangle``: options are read and checked, wrong input ends with code 2, results are printed."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import disentanglement
from orthogan.cli.main import main
from orthogan.data import ImageSource
from orthogan.disentanglement import activity, metric_names, read_options, vp
from orthogan.disentanglement.registry import LARGEST, find_metric
from orthogan.errors import CannotWrite, UserError
from orthogan.latent import Directions

OWN = "tests.cli.test_disentangle:"


class Wrapped(nn.Module):
    """As docs/guides/any-generator.md wraps somebody else's net."""

    latent_dim, num_classes = 4, 0

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.ConvTranspose2d(4, 2, 8), nn.ReLU(), nn.ConvTranspose2d(2, 1, 4, 4), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z[:, :, None, None])


class Oblong(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(z)[:, :, :16]


class NaNForSome(Wrapped):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images = super().forward(z)
        return torch.where(z[:, :1, None, None] > 1.9, torch.nan, images)


def run(subject: str, *words: str) -> int:
    return main(["disentangle", OWN + subject, "--seeds", "0", "--no-controls", "--device", "cpu", *words])


FEW = ["--set", "activeness.samples=4"]


@pytest.mark.parametrize(
    ("metric", "option", "said"),
    [
        ("vp", "pairs=1", "two pairs for training"),
        ("vp", "pairs=0", "two pairs for training"),
        ("vp", "pairs=-5", "two pairs for training"),
        ("vp", "pairs=x", "should be a valid integer"),
        ("vp", "pairs=1.5", "should be a valid integer"),
        ("vp", "pairs=yes", "must not be true or false"),
        ("vp", "pairs=1e30", "at most 1e+07"),
        ("vp", "pairs=[1, 2]", "should be a valid integer"),
        ("vp", "lr=.inf", "a finite number"),
        ("vp", "lr=.nan", "a finite number"),
        ("vp", "reach=-1", "reach=-1"),
        ("vp", "epochs=0", "at least 1 epoch"),
        ("vp", "protocol=publishd", "'validation' or 'published'"),
        ("vp", "protocl=published", "did you mean 'protocol'?"),
        ("vp", "inputs=3", "'diff' or 'both'"),
        ("vp", "pairs={a: [", "YAML"),
        ("activeness", "samples=0", "samples=0"),
        ("activeness", "values=1", "should be an instance of Sequence"),
        ("activeness", "values=-2,x,2", "should be a valid number"),
        ("activeness", "values=-2,.inf", "a finite number"),
        ("activeness", "values=[3]", "at least 2"),
        ("activeness", "pairs=4", "known: samples, values"),
        ("mig", "bins=1", "options of 'mig'"),
        ("vp", "seed=4", "known: "),
    ],
)
def test_options_that_mean_nothing_end_with_code_2(
    metric: str, option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "vp" if metric == "mig" else metric
    assert run("Wrapped", "--metrics", asked, "--set", f"{metric}.{option}") == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-3", 1e-3),
        ("lr=1", 1.0),
        ("pairs=2e2", 200),
        ("pairs=200.0", 200),
        ("train_share=.5", 0.5),
        ("epochs=null", None),
        ("protocol=published", "published"),
    ],
)
def test_numbers_are_read_as_those_of_train(text: str, expected: object) -> None:
    from orthogan.cli.disentangle import read_set

    found = read_options(["vp"], read_set([f"vp.{text}"]))["vp"][text.partition("=")[0]]
    assert found == expected
    assert type(found) is type(expected)


def test_a_list_may_be_written_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--metrics", "Activeness", *FEW, "--set", "activeness.values=-2,0,2", "--json"]
    assert run("Wrapped", *words) == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert record["label"] == "activeness[k=4,values=-2|0|2,latents=4]"
    assert record["value"] == pytest.approx(activity(Wrapped(), samples=4).value)


words = st.text(string.printable, max_size=5)
lists = st.lists(st.integers(), max_size=3)
values = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), words, lists)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), metric=st.sampled_from([name for name in metric_names() if find_metric(name).options]))
def test_any_value_is_read_in_the_type_of_the_option_or_refused(data: st.DataObject, metric: str) -> None:
    name = data.draw(st.sampled_from(find_metric(metric).options))
    value: Any = data.draw(values)
    try:
        found = read_options([metric], {metric: {name: value}})[metric][name]
    except UserError as error:
        assert name in str(error) or "YAML" in str(error)  # noqa: PT017
    else:
        numbers = found if isinstance(found, list | tuple) else [found]
        assert all(abs(number) <= LARGEST for number in numbers if isinstance(number, int | float))


@pytest.mark.parametrize(
    ("subject", "words", "said"),
    [
        ("Wrapped", ["--metrics", "activeness", "--directions", "parallel.safetensors"], "linearly dependent"),
        ("NaNForSome", ["--metrics", "activeness"], "the images contain NaN or infinite values"),
        ("NaNForSome", ["--metrics", "vp", "--set", "vp.pairs=200"], "the images contain NaN or infinite values"),
        ("Oblong", ["--metrics", "mig", "--data", "sprites"], "square images only"),
        ("Wrapped", ["--metrics", "mig"], "needs images with known factors"),
        ("Wrapped", ["--metrics", "activenes"], "did you mean 'activeness'?"),
    ],
)
def test_what_a_metric_refuses_ends_with_code_2(
    subject: str,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Directions(np.eye(2, 4)[[0, 0]] * [[1], [2]], method="edits").save("parallel.safetensors")
    assert run(subject, *words) == 2
    assert said in capsys.readouterr().err


def test_the_data_are_as_large_as_the_images_of_a_wrapped_net(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageSource] = []

    def fake(net: nn.Module, metrics: object, *, source: ImageSource, **options: object) -> list[object]:
        seen.append(source)
        return []

    monkeypatch.setattr(disentanglement, "disentangle", fake)
    assert run("Wrapped", "--metrics", "mig", "--data", "sprites") == 0
    assert (seen[0].resolution, seen[0].channels) == (32, 1)


@pytest.mark.parametrize("as_json", [True, False])
def test_results_are_printed_before_they_are_stored(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, results: object) -> None:
        raise CannotWrite(f"cannot write {path}: no space")

    monkeypatch.setattr("orthogan.evaluation.append_jsonl", full)
    monkeypatch.setattr("orthogan.cli.disentangle.find_run", Path)
    subjects = [OWN + "Wrapped", OWN + "Oblong"]
    asked = ["--metrics", "activeness", *FEW, "--seeds", "0", *(["--json"] if as_json else [])]
    assert main(["disentangle", *subjects, *asked, "--no-controls", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out.count("activeness") >= 2  # of both subjects
    assert "cannot write" in err


def test_a_vp_whose_net_diverged_is_no_number() -> None:
    with pytest.raises(ValueError, match="the loss became"):
        vp(Wrapped(), pairs=100, epochs=2, lr=1e30)


def test_a_metric_from_outside_the_package_works_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_metrics.py").write_text(
        "from orthogan.disentanglement import Score\n"
        "def directions(generator, directions, *, factor: float = 1.0, y=None, seed=0):\n"
        "    return Score('directions', f'factor={factor:g}', factor * len(directions), seed)\n"
        "def wrong(net):\n"
        "    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_metrics:directions"
    assert run("Wrapped", "--metrics", name, "--set", f"{name}.factor=2", "--json") == 0
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert record["label"] == "my_metrics:directions[factor=2]"
    assert record["value"] == 8
    assert run("Wrapped", "--metrics", "my_metrics:wrong") == 2
    assert "whose first arguments are one of" in capsys.readouterr().err
