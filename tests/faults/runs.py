"""The runs that are harmed: seconds long, with everything that a run writes, and the same ones left alone."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.child import Child

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "configs" / "sprites" / "srngan.yaml"
EXTRACTOR = "tests.fixtures.extractor:Moments"
TINY = (
    "model.generator.channels=4",
    "model.discriminator.channels=4",
    "data.count=256",
    "training.batch_size=8",
    "training.generator_batch_size=8",
    "training.d_steps_per_g_step=1",
    "training.device=cpu",
    "checkpoint.every=3",
    "checkpoint.keep=2",
    "logging.every=1",
    "logging.samples_every=5",
    "logging.spectrum_every=4",
    "logging.samples=4",
    "evaluation.samples=16",
    "evaluation.reference_samples=16",
    "evaluation.batch_size=16",
    f"evaluation.extractor={EXTRACTOR}",
)
UNSCORED = ("evaluation.every=0", "evaluation.at_start=false")
PATIENCE = 240.0  # seconds after which a command that should have ended hangs; the machine may be busy


@dataclass(frozen=True)
class Setting:
    """A run of ``steps`` steps; ``processes``: as torchrun would start them."""

    name: str
    steps: int = 24
    more: Sequence[str] = UNSCORED
    processes: int = 1
    words: list[str] = field(init=False)

    def __post_init__(self) -> None:
        words = ["train", str(SMALL), *TINY, f"training.steps={self.steps}", "out=run", *self.more]
        object.__setattr__(self, "words", words)

    def start(self, folder: Path, **options: object) -> list[Child]:
        """Start the run in ``folder``/run: one child per process."""
        if self.processes == 1:
            return [Child(self.words, folder, **options)]
        shared = {
            "WORLD_SIZE": str(self.processes),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        return [
            Child(
                self.words,
                folder,
                output=f"output{rank}.txt",
                environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                **options,
            )
            for rank in range(self.processes)
        ]

    def finish(self, folder: Path, **options: object) -> list[Child]:
        """Start the run and wait for its end."""
        children = self.start(folder, **options)
        for child in children:
            child.wait(PATIENCE)
        return children

    def reference(self, out: Path) -> Path:
        """The folder of the uninterrupted run, with all its checkpoints; made once below ``out``."""
        folder = out / "reference" / self.name
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            children = self.finish(folder, prepare=_keep_all)
            for child in children:
                assert child.code == 0, f"the uninterrupted run ends with {child.code}:\n{child.said()[-2000:]}"
            (folder / "whole").touch()
        return folder / "run"


STATEFUL = (  # what carries state from step to step
    "augment.kind=ada",
    "augment.interval=3",
    "loss.gradient_penalty.kind=r1",
    "loss.gradient_penalty.interval=3",
)
SCORED = ("evaluation.every=6", "evaluation.at_start=true")
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("plain"),
        Setting("scored", more=SCORED),
        Setting("background", more=(*SCORED, "evaluation.background=true")),
        Setting("streamed", more=(*UNSCORED, "data.resident=stream", "augment.kind=ada", "augment.interval=2")),
        Setting("two", processes=2, more=(*UNSCORED, *STATEFUL)),
        Setting("short", steps=9, more=("evaluation.every=3", "evaluation.at_start=true")),
    )
}


def _keep_all() -> None:
    from orthogan.io import checkpoint

    checkpoint.prune = lambda *_, **__: None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment_for(out: Path) -> None:
    """One thread per process and a cache of our own, for this process and its children."""
    os.environ.update(
        {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ORTHOGAN_CACHE": str(out.resolve() / "cache")}
    )
