"""ResNets around a matrix decomposition, covariance pooling of any classifier, and their names of version 0.1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orthogan.config.files import load_config
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io.weights import write_sealed
from orthogan.layers import CovariancePooling
from orthogan.models.build import build_classifier
from orthogan.models.classifiers.covariance import PooledResNet, StemResNet
from orthogan.models.open import load_classifier
from orthogan.models.saved import CLASSIFIER_FORMAT, metadata


@pytest.mark.parametrize("skew", [False, True])
def test_a_stem_and_a_reduction_may_be_orthogonal_maps(skew: bool) -> None:
    torch.manual_seed(0)
    shared = {"resolution": 16, "image_channels": 1, "num_classes": 10}
    stem = StemResNet(depth=18, channels=8, skew=skew, **shared)
    pooled = PooledResNet(depth=14, channels=4, dimension=8, skew=skew, **shared)
    for net, layer in ((stem, stem.conv), (pooled, pooled.pool.reduction[0])):
        assert net.eval()(torch.randn(3, 1, 16, 16)).shape == (3, 10)
        if skew:
            x = torch.randn(2, layer.in_channels, 8, 8)
            ratio = layer(x).detach().flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
            if layer.in_channels <= layer.out_channels:  # an isometry, up to the series that ends
                torch.testing.assert_close(ratio, torch.ones(2), rtol=0.02, atol=0)
            else:
                assert float(ratio.max()) <= 1.02


def test_pooling_by_the_mean_is_the_plain_net() -> None:
    torch.manual_seed(0)
    net = PooledResNet(depth=14, channels=4, method="mean", resolution=16, image_channels=1, num_classes=10)
    assert net.pool is None
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 10)


def settings(*overrides: str) -> Config:
    small = ["data.resolution=32", "data.channels=1", "model.classifier.channels=4"]
    return load_config(None, ["task=classifier", *small, *overrides])


POOL = "model.classifier.pooling={kind: covariance, dimension: 8, method: eigh}"


@pytest.mark.parametrize("kind", ["resnet18", "resnet20", "wrn-10-1", "densenet40", "vgg11", "alexnet"])
def test_any_classifier_with_a_mean_over_its_last_map_pools_by_the_covariance(kind: str) -> None:
    net = build_classifier(settings(f"model.classifier.kind={kind}", POOL), num_classes=3)
    assert isinstance(net.pool, CovariancePooling)
    logits = net(torch.randn(4, 1, 32, 32))
    assert logits.shape == (4, 3)
    logits.sum().backward()
    assert torch.isfinite(net.pool.reduction[0].weight.grad).all()


@pytest.mark.parametrize("kind", ["mlp", "cnn6"])
def test_a_classifier_without_that_mean_says_so(kind: str) -> None:
    with pytest.raises(UserError, match="has no mean over the last map"):
        build_classifier(settings(f"model.classifier.kind={kind}", POOL), num_classes=3)


def test_pooling_is_the_net_of_the_study_number_by_number() -> None:
    options = "model.classifier.options={depth: 20, dimension: 8}"
    study = build_classifier(settings("model.classifier.kind=pooled-resnet", options), num_classes=3)
    plain = build_classifier(settings("model.classifier.kind=resnet20", POOL), num_classes=3)
    ours, theirs = plain.state_dict(), study.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("old", "new", "options"),
    [
        ("orthogan.studies.covariance_nets:PooledResNet", "pooled-resnet", {"depth": 8, "method": "pade"}),
        ("orthogan.studies.papers.covariance_nets:StemResNet", "stem-resnet", {"depth": 18, "skew": True}),
        ("orthogan.studies.learned_neurons:LearnedNeurons", "learned-neurons", {"transform": "free", "depth": 9}),
    ],
)
def test_files_with_the_names_of_version_0_1_load_without_consent(
    old: str, new: str, options: dict[str, object], tmp_path: Path
) -> None:
    config = settings(f"model.classifier.kind={new}", f"model.classifier.options={options}")
    net = build_classifier(config, num_classes=3).eval()
    tree = config.model_dump()
    tree["model"]["classifier"]["kind"] = old
    about = metadata(tree, 3, {}, form=CLASSIFIER_FORMAT)
    write_sealed(tmp_path / "old.safetensors", net.state_dict(), about)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(load_classifier(tmp_path / "old.safetensors")(x), net(x))
    assert settings(f"model.classifier.kind={old}", f"model.classifier.options={options}") == config
