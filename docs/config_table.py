"""Writes the tables of docs/configs.md from the configs, their networks, and docs/config_costs.json.

    python -m docs.config_table                          # write the page
    python -m docs.config_table --measure demo …         # first measure these configs again (names below configs/)

What is measured, by a dry run on random images in place of the data set: processor time per step of one thread, and the
peak memory of the process. Scores are those that `orthogan.training.expected` finds (cards of the shipped models, files
beside the configs), and otherwise those in docs/config_costs.json, each with the page that holds its protocol.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, COSTS = ROOT / "docs" / "configs.md", ROOT / "docs" / "config_costs.json"
BEGIN, END = "<!-- configs -->\n", "<!-- end of configs -->\n"
CLASSES = {"cifar10": 10, "emoji": 9, "cifar100": 100, "fashion-mnist": 10, "stl10": 10}
GROUPS = {  # heading -> which configs, in this order
    "GANs by training time": lambda name, task: task == "gan" and re.search("-(minutes|hours?)$|^demo$", name),
    "GANs for a CPU": lambda name, task: task == "gan" and (name.endswith("-cpu") or name.split("/")[0] in CPU),
    "GANs for your own images": lambda name, task: task == "gan" and name.startswith("folder"),
    "GANs at full size": lambda name, task: task == "gan",
    "Classifiers": lambda name, task: True,
}
CPU = ("sprites", "faces")


def configs() -> dict[str, Path]:
    """Every config that is an experiment: recipes that others build on are left out."""
    parts = (
        "recipes/classifier",
        "recipes/cpu",
        "recipes/dcgan",
        "recipes/eigengan",
        "recipes/infogan",
        "recipes/minutes",
        "recipes/sngan",
        "recipes/sngan-64",
    )
    parts += ("recipes/sprites", "recipes/wgan-gp")
    files = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix(): path for path in ROOT.glob("configs/**/*.yaml")
    }
    return {name: files[name] for name in sorted(files) if name not in parts}


def tables() -> str:
    """The tables, as Markdown."""
    from orthogan.config.files import load_config

    costs: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    left = {name: load_config(path) for name, path in configs().items()}
    lines: list[str] = []
    for heading, belongs in GROUPS.items():
        members = [name for name, config in left.items() if belongs(name, config.task)]
        if not members:
            continue
        lines += [f"## {heading}", ""]
        lines += ["| config | model | data | steps x batch | parameters | CPU time per step | memory | score |"]
        lines += ["|---|---|---|---:|---:|---:|---:|---|"]
        for name in members:
            lines.append(row(name, left.pop(name), costs["measured"].get(name), costs["scores"].get(name)))
        lines.append("")
    return "\n".join(lines)


def row(name: str, config: Any, cost: dict[str, Any] | None, score: dict[str, str] | None) -> str:
    """One line of a table."""
    from orthogan.training.expected import find_expected

    data, training = config.data, config.training
    steps = f"{training.steps:,} x {training.batch_size}"
    if config.task == "gan" and training.d_steps_per_g_step > 1:
        steps += f" x {training.d_steps_per_g_step}"
    kind = config.model.classifier.kind if config.task == "classifier" else config.model.generator.kind
    net = config.model.classifier if config.task == "classifier" else config.model.discriminator
    model = kind + (f", {net.norm.kind}" if net.norm.kind != "none" else "") + (", with classes" if data.labels else "")
    time_, memory, told = "–", "–", "–"
    if cost:
        time_, memory = f"{cost['cpu_seconds_per_step']:.2g}\u00a0s", f"{cost['peak_mib']:,}\u00a0MiB"
    expected = find_expected(config)
    if expected:
        told = expected.target()
        told += f"; the run took {expected.seconds / 60:.1f} min on {expected.machine}" if expected.seconds else ""
    elif score:
        told = f"[{score['score']}]({score['page']})"
    link = f"[`{name}`](../configs/{name}.yaml)"
    sizes = f"{data.source}, {data.resolution} px"
    return f"| {link} | {model} | {sizes} | {steps} | {parameters(config)} | {time_} | {memory} | {told} |"


def parameters(config: Any) -> str:
    """Numbers of trained parameters, of G and D or of the classifier."""
    import torch

    from orthogan.models.build import build_classifier, build_discriminator, build_generator

    classes = CLASSES.get(config.data.source, 0)
    if config.task == "gan" and not config.data.labels:
        classes = 0
    builders = [build_classifier] if config.task == "classifier" else [build_generator, build_discriminator]
    told = []
    for build in builders:
        net = None
        with suppress(NotImplementedError, RuntimeError), torch.device("meta"):
            net = build(config, num_classes=classes)
        if net is None:  # such as with codes, whose network is made for the features that D has for an image
            net = build(config, num_classes=classes)
        told.append(short(sum(p.numel() for p in net.parameters() if p.requires_grad)))
    return "\u00a0+ ".join(told)


def short(count: int) -> str:
    """12.3 M, 456 k."""
    return f"{count / 1e6:.3g}\u00a0M" if count >= 1e6 else f"{count / 1e3:.3g}\u00a0k"


def measure(name: str) -> dict[str, Any]:
    """Steps of a config on random images, in a process of its own, with one thread."""
    out = subprocess.run(
        [sys.executable, "-m", "docs.config_table", "--one", name], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(out.stdout.splitlines()[-1])


def one(name: str) -> None:
    """What ``measure`` starts: a dry run, whose clock counts processor time."""
    import numpy as np
    import torch

    from orthogan.config.files import load_config
    from orthogan.training import dry_run

    torch.set_num_threads(1)
    time.perf_counter = time.process_time
    path = configs()[name]
    shown = load_config(path)
    with tempfile.TemporaryDirectory() as folder:
        shape = (512, shown.data.resolution, shown.data.resolution)
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3) if shown.data.channels == 3 else shape, np.uint8)
        np.savez(f"{folder}/images.npz", images=images, labels=np.arange(512) % CLASSES.get(shown.data.source, 10))
        new = ["data.source=array", f"data.path={folder}/images.npz", "data.count=null", "data.options={}"]
        new += [f"out={folder}/run", "training.device=cpu", "evaluation.every=0", "evaluation.at_start=false"]
        new += ["data.holdout=0.2"] if shown.task == "classifier" else []
        facts = dry_run(path, new)
    seconds, memory = (re.search(r"steps of ([\d.e-]+) s", facts["time"]), re.search(r"\d+", facts["peak memory"]))
    assert seconds is not None, facts
    assert memory is not None, facts
    print(json.dumps({"cpu_seconds_per_step": float(seconds[1]), "peak_mib": int(memory[0])}))


def main(arguments: list[str]) -> None:
    """The command line."""
    if arguments[:1] == ["--one"]:
        one(arguments[1])
        return
    if arguments[:1] == ["--measure"]:
        for name in arguments[1:]:
            costs = json.loads(COSTS.read_text(encoding="utf-8"))
            costs["measured"][name] = measure(name)
            print(name, costs["measured"][name], flush=True)
            COSTS.write_text(json.dumps(costs, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
