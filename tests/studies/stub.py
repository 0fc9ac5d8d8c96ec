"""A study that trains nothing: its runs write a number, diverge, fail, are killed, or wait to be stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from orthogan.config.files import dump
from orthogan.config.schema import Config
from orthogan.errors import Diverged, Stopped, UserError
from orthogan.studies import Claim, Found, Measure, Method, Number, Scale, Setting, Study, higher, lower
from orthogan.studies.finished import FinishedRun
from orthogan.training.stop import StopSignal

PATIENCE = 30.0  # seconds after which a run that waits gives up
NUMBER = "error [%]"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f0005000"
    "1ff56c72f0d0000000049454e44ae426082"
)


def fate(name: str, **more: Any) -> dict[str, Any]:
    """The keys of a run that ends so."""
    return {"model.generator.options": {"fate": name, **more}}


def run(config: Config) -> Path:
    """What ``training.train`` is to a study: writes config, log and one number."""
    folder = Path(str(config.out))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    with (folder / "ran.txt").open("a") as stream:
        stream.write("ran\n")
    options = config.model.generator.options
    match options.get("fate", "good"):
        case "diverge":
            raise Diverged("loss at step 3 is nan")
        case "user":
            raise UserError("data.path: nowhere")
        case "bug":
            raise ZeroDivisionError("of a cell")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (folder / "waited.txt").write_text(str(os.getpid()))
            time.sleep(PATIENCE)
        case "wait" if not (folder / "waited.txt").exists():
            _wait(folder)
    value = 10 + options.get("shift", 0.0) + 0.1 * ((7 * config.seed) % 3)
    lines = [f'{{"step": {s}, "images": {8 * s}, "seconds": {s}.5, "C/loss": {value / s}}}' for s in (1, 2, 3, 4)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "number.txt").write_text(str(value))
    (folder / "picture.png").write_bytes(PIXEL)
    return folder


def _wait(folder: Path) -> None:
    with StopSignal() as stop:
        (folder / "waited.txt").touch()
        end = time.monotonic() + PATIENCE
        while stop.name is None and time.monotonic() < end:
            time.sleep(0.05)
    if stop.name is not None:
        raise Stopped("saved")


def measure(run: FinishedRun) -> Found:
    """The number, under a protocol, with a curve and a picture."""
    value = float((run.folder / "number.txt").read_text())
    options = run.config.model.generator.options
    protocol = {"samples": options.get("samples", 100), "seed": run.config.seed, "seconds": 3.0}
    return Found({NUMBER: Number(value, "lower", protocol)}, {"loss": run.curve("C/loss")}, ["picture.png"])


def study(*, claims: bool = True, **methods: dict[str, Any]) -> Study:
    """Of ``base`` and these methods, in one setting or (scale cpu) two."""
    settings = {"small": Setting(note="a small one"), "large": Setting({"model.generator.latent_dim": 64})}
    judged = (Claim("second beats base", "Somebody 2020", (lower(NUMBER, "second", "base"),)),)
    doubted = (Claim("second is worse", "Nobody 2021", (higher(NUMBER, "second", "base"),)),)
    return Study(
        name="stub",
        title="A stub",
        about="Nothing is trained.",
        baseline="base",
        methods={"base": Method({}, "as it is."), **{name: Method(keys) for name, keys in methods.items()}},
        scales={"smoke": Scale({}, seeds=3), "cpu": Scale({}, settings, seeds=2)},
        measures=(Measure("number", measure),),
        claims=judged + doubted if claims and "second" in methods else (),
        run=run,
    )


STUDY = study(second=fate("good", shift=-1.0))
FAILING = study(second=fate("diverge"), third=fate("bug"), fourth=fate("kill"), fifth=fate("user"))
WAITING = study(second=fate("wait"))
STUBBORN = study(second=fate("stubborn"))
