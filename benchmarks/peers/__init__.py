"""Other people's trainers as contenders, from a copy that the user has on disk; nothing of theirs is kept here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gate import Gate
from benchmarks.setting import Setting


def _gan_collections(setting: Setting, gate: Gate, *, path: str, recipe: str = "") -> None:
    from benchmarks.peers import gan_collections

    gan_collections.run(setting, gate, path, recipe)


def _lightweight_gan(setting: Setting, gate: Gate, *, path: str) -> None:
    from benchmarks.peers import lightweight_gan

    lightweight_gan.run(setting, gate, path)


def _mimicry(setting: Setting, gate: Gate, *, path: str, recipe: str = "") -> None:
    from benchmarks.peers import mimicry

    mimicry.run(setting, gate, path, recipe)


def _studiogan(setting: Setting, gate: Gate, *, path: str) -> None:
    from benchmarks.peers import studiogan

    studiogan.run(setting, gate, path)


PEERS: dict[str, Callable[..., Any]] = {
    "pytorch-gan-collections": _gan_collections,
    "mimicry": _mimicry,
    "studiogan": _studiogan,
    "lightweight-gan": _lightweight_gan,
}
OWN_NETS = ("lightweight-gan",)  # they do not train the networks of the others
