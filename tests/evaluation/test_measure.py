"""Scores: equal to torch-fidelity's, the same on any number of processes, and never without a protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmarks.scores import one_by_one
from orthogan.distributed import share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation import append_jsonl, evaluate, load_extractor, table
from orthogan.evaluation.fidelity import kid
from orthogan.evaluation.images import generate_images, latents, real
from orthogan.evaluation.result import MetricResult
from orthogan.rng import derive
from tests.fixtures.runs import environment
from tests.fixtures.scored import EXTRACTOR, Patches, source

FIRST_LABELS = [1, 1, 0, 1, 0, 2]  # of 2,100 images of 3 classes, seed 4
CLASSIFYING = "tests.fixtures.scored:Classifying"


def fakes(net: Patches, count: int, **options: object) -> Tensor:
    arguments = {"seed": 0, "batch_size": 16, "truncation": 1.0, "device": torch.device("cpu"), **options}
    return torch.cat(list(generate_images(net.eval(), count, **arguments)))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the official file's format."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
            lambda *args, **options: {},
        )
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.slow
def test_equal_to_torch_fidelity(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.evaluation.fidelity.kid.SUBSET_SIZE", 16)
    net, reals = Patches(), source(24)
    found = evaluate(
        net,
        reals,
        metrics=["fid", "isc", "kid", "prc"],
        samples=32,
        extractor="inception",
        weights=inception,
        progress=False,
    )
    theirs = torch_fidelity.calculate_metrics(
        input1=one_by_one(fakes(net, 32)),
        input2=one_by_one(torch.cat(list(real(reals, None, batch_size=8)))),
        cuda=False,
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        kid_subset_size=16,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception),
        verbose=False,
    )
    fid, isc, kid, prc = found
    assert [r.label for r in found] == ["FID", "IS", "KID", "F-score[inception]"]
    assert fid.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-6)
    assert isc.value == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert isc.std == pytest.approx(theirs["inception_score_std"], rel=1e-3, abs=1e-9)
    assert kid.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-7)
    assert prc.parts["precision"] == pytest.approx(theirs["precision"])
    assert prc.parts["recall"] == pytest.approx(theirs["recall"])
    assert prc.value == pytest.approx(theirs["f_score"])


def test_images_do_not_depend_on_batch_size() -> None:
    net = Patches()
    torch.testing.assert_close(fakes(net, 40, batch_size=7), fakes(net, 40, batch_size=40), atol=1, rtol=0)
    torch.testing.assert_close(fakes(net, 40)[:20], fakes(net, 20), atol=1, rtol=0)
    assert not torch.equal(fakes(net, 40), fakes(net, 40, seed=1))


def test_latents_run_on_over_the_borders_of_blocks() -> None:
    net = Patches(channels=1)
    many = fakes(net, 1100, batch_size=100)
    assert many.shape == (1100, 1, 16, 16)
    assert len(torch.unique(many.flatten(1), dim=0)) == 1100


@pytest.mark.parametrize("batch_size", [7, 1000, 2048])
def test_image_i_is_of_latent_and_label_i_whatever_the_batches(batch_size: int) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Recording(Patches):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            seen.append((z, y))
            return super().forward(z, y)

    net = Recording(num_classes=3)
    fakes(net, 2100, batch_size=batch_size, seed=4)
    z, y = (torch.cat(parts) for parts in zip(*seen, strict=True))
    drawn = [net.sample_latent(1024, seed=derive(4, "evaluation block", block)) for block in range(3)]
    assert torch.equal(z, torch.cat(drawn)[:2100])
    assert torch.equal(z[1000:1100], latents(net, 1000, 1100, 4))
    assert y.bincount().tolist() == [700, 700, 700]
    assert y[:6].tolist() == FIRST_LABELS


def test_classes_are_drawn_evenly() -> None:
    seen: list[Tensor] = []

    class Recording(Patches):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            assert y is not None
            seen.append(y)
            return super().forward(z, y)

    fakes(Recording(num_classes=4), 40)
    labels = torch.cat(seen)
    assert labels.bincount().tolist() == [10, 10, 10, 10]
    assert labels[:20].tolist() != sorted(labels[:20].tolist())


def test_the_generator_comes_back_in_its_own_mode() -> None:
    net = Patches().train()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    evaluate(net, source(), samples=16, extractor=EXTRACTOR, progress=False)
    assert net.training
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def test_the_same_images_are_at_distance_zero_and_others_are_not() -> None:
    (same,) = evaluate(source(), source(), samples=None, extractor=EXTRACTOR, progress=False)
    (other,) = evaluate(Patches(), source(), samples=64, extractor=EXTRACTOR, progress=False)
    assert same.value == pytest.approx(0.0, abs=1e-6)
    assert other.value > 0.05
    (prc,) = evaluate(source(), source(), metrics=["prc"], samples=None, extractor=EXTRACTOR, progress=False)
    assert (prc.parts["precision"], prc.parts["recall"]) == (1.0, 1.0)


TWO = """
import json, os, sys, torch.distributed as dist
from pathlib import Path
import torch
from orthogan.errors import UserError
from orthogan.evaluation import evaluate
from orthogan.evaluation.fidelity import kid
from orthogan.distributed import all_true, broadcast_json, gather_rows
from tests.fixtures.scored import Patches, source
dist.init_process_group("gloo")
rank, folder = dist.get_rank(), Path(sys.argv[1])
options = {"extractor": "tests.fixtures.scored:Classifying", "progress": False}
found = evaluate(Patches(3), source(50), metrics=["fid", "isc", "prc", "pixel_path_length"], samples=41,
                 save_reference_to=folder / "reference.safetensors", **options)
kid.SUBSETS, kid.SUBSET_SIZE = 4, 3
found += evaluate(Patches(3), source(50), metrics=["kid"], samples=41, **options)
(cached,) = evaluate(Patches(3), source(50), samples=41, **options)
assert cached.value == found[0].value
assert gather_rows(torch.full((rank + 1, 2), rank)).tolist() == [[0, 0], [1, 1], [1, 1]]
assert broadcast_json({"rank": rank, "x": 0.1 + rank}) == {"rank": 0, "x": 0.1}
assert all_true(True) and not all_true(rank == 0)
try:
    evaluate(Patches(), source(50), samples=1, **options)
except UserError as error:
    assert "at least 2" in str(error)
(folder / f"{rank}.json").write_text(json.dumps([r.as_dict() for r in found]))
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end
"""


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ["fid", "isc", "prc", "pixel_path_length"]
    one = evaluate(Patches(3), source(50), metrics=metrics, samples=41, extractor=CLASSIFYING, progress=False)
    monkeypatch.setattr(kid, "SUBSETS", 4)  # of 3: the processes exchange a part of the features
    monkeypatch.setattr(kid, "SUBSET_SIZE", 3)
    one += evaluate(Patches(3), source(50), metrics=["kid"], samples=41, extractor=CLASSIFYING, progress=False)
    script = tmp_path / "two.py"
    script.write_text(TWO)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"),
            *("--rdzv_endpoint", "localhost:0", str(script), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": str(root), "ORTHOGAN_CACHE": str(tmp_path / "cache")},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert lines[0] == lines[1]
    for theirs, mine in zip(lines[0], one, strict=True):
        rounding = 1e-3 if mine.metric == "pixel_path_length" else 1e-4  # of steps of 1e-4 in float32
        assert theirs["value"] == pytest.approx(mine.value, rel=rounding, abs=1e-6)
        assert (theirs["std"] is None) == (mine.std is None)
        assert theirs["parts"] == pytest.approx(mine.parts)
    (alone,) = evaluate(
        Patches(3), tmp_path / "reference.safetensors", samples=41, extractor=CLASSIFYING, progress=False
    )
    assert alone.value == pytest.approx(lines[0][0]["value"], rel=1e-4, abs=1e-6)


def test_shares_cover_everything_once() -> None:
    assert share_of_rank(10) == (0, 10)


def test_no_number_without_its_protocol(tmp_path: Path) -> None:
    results = evaluate(Patches(), source(), samples=16, extractor=EXTRACTOR, progress=False, info={"step": "7"})
    protocol = results[0].protocol
    assert protocol["samples"] == 16
    assert protocol["reference"] == "noise, 64 images of 16 px"
    for key in ("extractor", "extractor weights", "resize", "seed", "torch", "torch-fidelity", "dtype", "seconds"):
        assert key in protocol
    append_jsonl(tmp_path / "m.jsonl", results)
    append_jsonl(tmp_path / "m.jsonl", results)
    records = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert records[0]["label"] == "FD[Moments]"
    assert records[0]["value"] == results[0].value
    assert "FD[Moments]" in table(results)
    assert results[0].one_line().startswith("step 7: FD[Moments]")


def test_only_inception_features_make_an_fid() -> None:
    names = {m: MetricResult(m, 1.0, "inception").label for m in ("fid", "isc", "kid")}
    assert names == {"fid": "FID", "isc": "IS", "kid": "KID"}
    assert MetricResult("fid", 1.0, "vgg16").label == "FD[vgg16]"
    assert MetricResult("kid", 1.0, "efficientnet-lite0").label == "KD[efficientnet-lite0]"
    assert MetricResult("isc", 1.0, "efficientnet-lite0").label == "IS[efficientnet-lite0]"
    assert MetricResult("prc", 1.0, "inception").label == "F-score[inception]"  # the paper's is VGG16's


def test_unlike_protocols_are_not_put_under_one() -> None:
    a, b = ({"samples": n, "reference": "r"} for n in (10, 50_000))
    same = table([MetricResult("fid", 1.0, "x", protocol=a), MetricResult("isc", 2.0, "x", 0.5, protocol=a)])
    assert same.count("samples") == 1
    unlike = table([MetricResult("fid", 1.0, "x", protocol=a), MetricResult("fid", 2.0, "x", protocol=b)])
    first, second = unlike.split("FD[x]")[1:]
    assert "10" in first
    assert "50000" not in first
    assert "50000" in second


def test_images_are_scored_without_a_word_on_how_they_were_drawn() -> None:
    (found,) = evaluate(source(40, seed=1), source(), samples=20, extractor=EXTRACTOR, progress=False)
    assert found.protocol["samples"] == 20
    assert not {"truncation", "batch norm"} & set(found.protocol)
    (drawn,) = evaluate(Patches(), source(), samples=20, truncation=0.5, extractor=EXTRACTOR, progress=False)
    assert drawn.protocol["truncation"] == 0.5


def test_better_is_lower_or_higher() -> None:
    assert MetricResult("fid", 3.0, "x").is_better(4.0)
    assert not MetricResult("fid", 4.0, "x").is_better(4.0)
    assert MetricResult("isc", 5.0, "x").is_better(4.0)
    assert MetricResult("prc", 0.5, "x").is_better(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["fud"]}, "did you mean 'fd'"),
        ({"metrics": ["xyzzy"]}, "fid, fid_infinity, isc, kid, "),
        ({"metrics": []}, "at least one of"),
        ({"metrics": ["isc"], "reference": None}, "is not a classifier"),
        ({"metrics": ["kid"]}, "subsets of 1000"),
        ({"metrics": ["prc"], "samples": 3}, "more than 3"),
        ({"metrics": ["isc"], "reference": None, "samples": 9, "extractor": CLASSIFYING}, "at least 10 generated"),
        ({"truncation": 1.5}, "truncation=1.5"),
        ({"save_reference_to": "stats.npz"}, r"stats\.npz: .*\.safetensors"),
        ({"save_reference_to": f"{__file__}/stats.safetensors"}, "cannot write"),
        ({"extractor": "tests.fixtures.scored:Pictures"}, r"\(n, d\) features"),
        ({"extractor": "tests.fixtures.scored:Broken"}, "ZeroDivisionError"),
        ({"extractor": "tests.fixtures.scored:source"}, "a subclass of torch.nn.Module"),
        ({"samples": 1}, "at least 2"),
        ({"samples": None}, "how many images"),
        ({"extractor": "incepton"}, "did you mean 'inception'"),
        ({"extractor": "tests.nowhere:Net"}, "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    arguments = {"reference": source(), "samples": 16, "extractor": EXTRACTOR, "progress": False, **options}
    with pytest.raises(UserError, match=message):
        evaluate(Patches(), **arguments)


@pytest.mark.parametrize(
    "options",
    [{"metrics": ["kid"]}, {"metrics": ["isc"]}, {"samples": 1}, {"truncation": 2.0}, {"reference": "wrong"}],
)
def test_what_cannot_be_measured_is_refused_before_any_image_is_drawn_or_read(
    options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Untouchable(Patches):
        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            raise AssertionError("drawn")

    def untouchable(indices: object) -> None:
        raise AssertionError("read")

    images = source(seed=5)
    monkeypatch.setattr(images, "read", untouchable)
    reference: object = images
    arguments = {"samples": 16, **options}
    if arguments.pop("reference", None):
        reference = tmp_path / "wrong.npz"
        np.savez(tmp_path / "wrong.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UserError):
        evaluate(Untouchable(), reference, extractor=EXTRACTOR, progress=False, **arguments)


def test_statistics_of_other_tools_serve_as_reference(tmp_path: Path) -> None:
    images = source()
    features, _ = load_extractor(EXTRACTOR)(torch.cat(list(real(images, None, batch_size=64))))
    x = features.double().numpy()
    np.savez(tmp_path / "theirs.npz", mu=x.mean(0), sigma=np.cov(x, rowvar=False))
    (ours,) = evaluate(Patches(), images, samples=32, extractor=EXTRACTOR, progress=False)
    (theirs,) = evaluate(Patches(), tmp_path / "theirs.npz", samples=32, extractor=EXTRACTOR, progress=False)
    assert theirs.value == pytest.approx(ours.value, rel=1e-9)
    assert theirs.protocol["reference"] == "theirs.npz"


def test_a_comparison_needs_something_to_compare_with() -> None:
    with pytest.raises(UserError, match="needs a reference"):
        evaluate(Patches(), None, samples=16, extractor=EXTRACTOR)
    with pytest.raises(UserError, match="not statistics"):
        evaluate(Patches(), "stats.npz", metrics=["prc"], samples=16, extractor=EXTRACTOR)
    (alone,) = evaluate(Patches(), None, metrics=["isc"], samples=32, extractor=CLASSIFYING, progress=False)
    assert alone.value > 1


@pytest.mark.parametrize(
    "given",
    [
        {"reference": np.zeros((8, 3, 32, 32))},
        {"reference_samples": 8},
        {"save_reference_to": "x.safetensors"},
    ],
)
def test_what_is_compared_with_is_refused_where_no_metric_compares(given: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=f"{next(iter(given))} does not apply to the metrics isc, pixel_path_length, which use no"
    ):
        evaluate(Patches(), metrics=["isc", "pixel_path_length"], samples=16, extractor=EXTRACTOR, **given)
