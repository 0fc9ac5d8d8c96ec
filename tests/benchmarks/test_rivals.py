"""The loops that are raced: that they train the same nets, wait at the gate, and answer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import contender, ours, plain_loop
from benchmarks.gate import Finished
from benchmarks.peers import PEERS
from benchmarks.peers.imports import Nothing, StandIn, beside
from benchmarks.plain_nets import PlainDiscriminator, PlainGenerator, copy_parameters, normalised
from benchmarks.rivals import AbsentError, Rival, race
from benchmarks.setting import Setting, source_of
from orthogan.errors import UserError
from orthogan.models.families.sngan import SNGANDiscriminator, SNGANGenerator
from tests.fixtures.gates import Talk

TINY = Setting(channels=4, generator_channels=6, batch=2, generator_batch=4, n_dis=2, latent_dim=3, images=16)


@pytest.mark.parametrize("image_channels", [1, 3])
def test_the_plain_nets_are_the_functions_that_orthogan_trains(image_channels: int) -> None:
    torch.manual_seed(0)
    form: dict[str, Any] = {"resolution": 32, "image_channels": image_channels}
    pairs = [
        (SNGANGenerator(**form, channels=6, latent_dim=3), PlainGenerator(6, 3, image_channels), torch.randn(5, 3)),
        (
            SNGANDiscriminator(**form, channels=4),
            PlainDiscriminator(4, image_channels),
            torch.randn(5, image_channels, 32, 32),
        ),
    ]
    for net, plain, x in pairs:
        copy_parameters(net, plain)
        torch.testing.assert_close(plain(x).reshape_as(net(x)), net(x), rtol=1e-4, atol=1e-5)
        inputs, copies = x.clone().requires_grad_(), x.clone().requires_grad_()
        net(inputs).square().sum().backward()
        plain(copies).square().sum().backward()
        torch.testing.assert_close(copies.grad, inputs.grad, rtol=1e-3, atol=1e-4)


def test_parameters_of_another_net_are_refused() -> None:
    with pytest.raises(ValueError, match="does not go into"):
        copy_parameters(PlainDiscriminator(4, 1), PlainDiscriminator(4, 3))


def test_the_plain_discriminator_is_normalised_in_every_layer() -> None:
    net = normalised(PlainDiscriminator(4, 3))
    weights = [layer.weight for layer in net.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weights) == 11
    for _ in range(100):
        net(torch.zeros(1, 3, 32, 32))
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in net.modules() if hasattr(layer, "bias")]
    torch.testing.assert_close(torch.stack(norms), torch.ones(len(norms)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["orthogan", "plain"])
def test_a_contender_answers_every_reading_and_its_nets_have_the_same_size(kind: str) -> None:
    talk = Talk({"steps": 1}, {"score": {"samples": 2}}, {"steps": 2}, parts=True)
    talk.gate.facts = {}

    def run() -> None:
        if kind == "orthogan":
            ours.run(TINY, talk.gate, ["training.compile=none"])
        else:
            plain_loop.run(TINY, talk.gate, bf16=False, channels_last=False)

    with pytest.MonkeyPatch.context() as patch:
        module = ours if kind == "orthogan" else plain_loop
        patch.setattr(module, "scorer", lambda shown, source, device: lambda word: {"fd": len(source), **word})
        if kind == "plain":
            patch.setattr(plain_loop, "WORKERS", 0)
            patch.setattr(plain_loop, "DataLoader", _without_workers)
        with pytest.raises(Finished):
            run()
    ready, first, score, second = talk.said
    form: dict[str, Any] = {"resolution": 32, "image_channels": 3}
    nets = {"G": SNGANGenerator(**form, channels=6, latent_dim=3), "D": SNGANDiscriminator(**form, channels=4)}
    for name, net in nets.items():
        assert ready["ready"][f"{name} parameters"] == sum(p.numel() for p in net.parameters())
    assert score == {"fd": 16, "samples": 2}
    for word in (first, second):
        assert word["seconds"] > 0
        assert word["rss"] > 1e6
        assert set(word["parts"]) == {"D", "G"}
        assert 0 < word["parts"]["D"] + word["parts"]["G"] <= word["seconds"]


def _without_workers(*args: Any, persistent_workers: bool, **options: Any) -> Any:
    assert persistent_workers
    return torch.utils.data.DataLoader(*args, **options)


def test_the_clock_counts_what_lies_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.gate.time.perf_counter", lambda: now[0])
    talk = Talk({"steps": 2}, {"steps": 1}, parts=True)
    for seconds in (1.0, 3.0, 7.0):
        talk.gate()
        now[0] += seconds
        talk.gate.part("D")
        now[0] += 0.5
    with pytest.raises(Finished):
        talk.gate()
    _, first, second = talk.said
    assert first["seconds"] == 2.5
    assert first["parts"] == {"D": 2.0}
    assert second["seconds"] == 7.5


def test_a_key_that_this_version_does_not_have_is_named() -> None:
    with pytest.raises(UserError, match="compiled"):
        ours.run(TINY, Talk().gate, ["training.compiled=yes"])


def test_the_setting_is_the_config_of_our_contender(tmp_path: Path) -> None:
    config = ours.config_of(TINY, ["model.discriminator.norm.kind=stable_rank"], str(tmp_path))
    assert (config.training.batch_size, config.training.fakes, config.training.d_steps_per_g_step) == (2, 4, 2)
    assert (config.model.generator.channels, config.model.discriminator.channels) == (6, 4)
    assert config.model.discriminator.norm.kind == "stable_rank"
    assert config.optimizer.generator.beta1 == 0.0
    assert config.evaluation.every == 0


def test_the_images_of_a_race_are_the_same_in_every_process() -> None:
    source = source_of(TINY)
    assert source.images.shape == (16, 3, 32, 32)
    assert (source.images == source_of(TINY).images).all()
    sprites = source_of(Setting(data="sprites", images=5, image_channels=1))
    assert sprites.images.shape == (5, 1, 32, 32)


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_a_peer_that_is_not_at_its_path_is_named_with_a_remedy(peer: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--peer {peer}=.*name the folder of its repository"):
        PEERS[peer](TINY, Talk().gate, path=str(tmp_path))


def test_a_process_that_cannot_compete_says_why_in_one_line(tmp_path: Path) -> None:
    rival = Rival({"kind": "mimicry", "path": str(tmp_path)}, TINY, tmp_path / "log")
    try:
        with pytest.raises(AbsentError, match="there is no torch_mimicry"):
            rival.hear()
    finally:
        rival.close()
    assert "Traceback" in rival.printed()


def test_a_race_takes_readings_in_turns_and_goes_on_without_the_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, Any]] = []

    class Played:
        """A contender played from notes."""

        def __init__(self, contender: Any, setting: Setting, log: Path, *, parts: bool) -> None:
            assert asdict(setting) == asdict(TINY)
            self.name = contender["kind"]
            self.words: list[dict[str, Any]] = [{"ready": {"rss built": 1}}]

        def say(self, word: dict[str, Any]) -> None:
            heard.append((self.name, word["steps"]))
            self.words.append({"seconds": 0.5, "parts": {}, "rss": 2})

        def hear(self) -> dict[str, Any]:
            if self.name == "c" or (self.name == "d" and len(heard) > 5):
                raise AbsentError("no")
            return self.words.pop(0)

        def ask(self, word: dict[str, Any]) -> dict[str, Any]:
            self.say(word)
            return self.hear()

        def printed(self) -> str:
            return "at length"

        def close(self) -> None: ...

    monkeypatch.setattr("benchmarks.rivals.Rival", Played)
    names = {name: {"kind": name} for name in "abcd"}
    found = race(names, TINY, rounds=2, steps=None, warm_up=1, logs=tmp_path, title="", least=1.6)
    assert heard[:3] == [("a", 1), ("b", 1), ("d", 1)]
    assert heard[3:] == [("a", 4), ("b", 4), ("d", 4), ("b", 4), ("a", 4)]
    assert found.absent == {"c": "no", "d": "no"}
    assert found.printed == {"c": "at length", "d": "at length"}
    assert found.readings.seconds == {"a": [0.5, 0.5], "b": [0.5, 0.5]}


def test_stand_ins_are_gone_after_the_import(tmp_path: Path) -> None:
    (tmp_path / "needy_peer.py").write_text("import nowhere.within as w\nfrom nowhere import thing\nx = thing().y(1)\n")
    with beside(str(tmp_path), ("nowhere", "nowhere.within", "json")) as made_up:
        import needy_peer

        assert isinstance(sys.modules["nowhere"], StandIn)
    assert made_up == ["nowhere", "nowhere.within"]
    assert "nowhere" not in sys.modules
    assert isinstance(needy_peer.x, Nothing)
    sys.path.remove(str(tmp_path))
    del sys.modules["needy_peer"]


def test_a_contender_is_found_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setitem(PEERS, "mimicry", lambda setting, gate, **options: called.append((setting, options)))
    benchmark = torch.backends.cudnn.benchmark
    try:
        word = {"contender": {"kind": "mimicry", "path": "x"}, "setting": asdict(TINY), "parts": False}
        contender.compete(word, Talk().gate.channel)
    finally:
        torch.backends.cudnn.benchmark = benchmark
    assert called == [(TINY, {"path": "x"})]
