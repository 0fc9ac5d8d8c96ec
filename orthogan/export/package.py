"""Packaging a run as the folder of a model: both networks, pictures, and a card with scores and training details."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from orthogan.arguments import checked
from orthogan.config.files import command_word, differences, flatten, load_config
from orthogan.config.schema import Config
from orthogan.data import open_configured
from orthogan.data.sources import DATA_SOURCES
from orthogan.device import chosen_device
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.evaluation.metric import find_metrics
from orthogan.export.styles.page import own_directions
from orthogan.io import checkpoint
from orthogan.io.read import printable
from orthogan.io.terminal import shell_word
from orthogan.io.weights import write_sealed
from orthogan.io.write import check_holds_only, write_text
from orthogan.latent import Directions, render, sample_images, save_samples, traverse
from orthogan.models.card import Card, Curve, Facts, Point, ScoreOfCard, fakes_in_words, usage
from orthogan.models.codes import CodesConfig, codes_of, name_codes
from orthogan.models.open import OpenedModel, open_model
from orthogan.models.pretrained import shared_config
from orthogan.models.protocol import Generator
from orthogan.models.saved import DISCRIMINATOR_FORMAT, FORMAT, metadata
from orthogan.models.shipped import CARD, DISCRIMINATOR, GENERATOR
from orthogan.named_code import Trust
from orthogan.progress import duration
from orthogan.size import color_in_words, sides, size_in_words
from orthogan.training.expected import INCIDENTAL, curves_of
from orthogan.training.measure import measure_generator
from orthogan.training.resume import METRICS, own_scores
from orthogan.words import counted

SAMPLES, TRAVERSAL = "samples.png", "traversal.png"
FILES = (CARD, GENERATOR, DISCRIMINATOR, SAMPLES, TRAVERSAL)
MOST_ROWS = 8  # rows of the curve in the text of a card, and of the traversal
CLAIMED = 64  # number of seeds in the grid of samples


@dataclass(frozen=True)
class Description:
    """The parts of a card that no file of the run provides.

    Attributes:
        summary: one sentence.
        config: the config file of the run, for the command on the card; it can be a name.
        license: license of the weights, as the Hugging Face Hub writes it.
        machine: the machine that the run was trained on.
        data_license, data_origin: those of the images, if the source of the data does not define them.
        notes: Markdown at the end of the card.
        tags: in addition to those derived from the model.
        codes: names of the latent codes of the generator, by what they change; ``model.generator.codes.names``.
    """

    summary: str = ""
    config: str = ""
    license: str = "mit"
    machine: str = ""
    data_license: str = ""
    data_origin: str = ""
    notes: str = ""
    tags: Sequence[str] = field(default=())
    codes: Sequence[str] = field(default=())


@checked
def package(
    subject: str | Path,
    out: str | Path,
    about: Description = Description(),
    *,
    directions: Directions | None = None,
    dims: Sequence[int] | None = None,
    seed: int = 7,
    metrics: Sequence[str] = (),
    samples: int = 10_000,
    half: bool = False,
    name: str = "",
    device: str | None = None,
    trust: Trust = False,
) -> Path:
    """Write the folder of a model: averaged generator, discriminator, pictures, and a card with scores and protocol.

    ``orthogan.load`` and every command can open the folder; ``model.init`` starts from both networks.

    Args:
        subject: a run, or a checkpoint of a run, such as ``runs/x/best``.
        out: the folder; its last part is the name of the model. Files of an earlier call are replaced.
        directions: directions of the traversal; by default the axes of the model, else those of its first layer.
        dims: which directions to show; by default the 8 that change an image the most.
        seed: random seed of the base image of the traversal.
        metrics: scores to measure now, on ``samples`` fakes against all training images; scores of training are kept.
        half: store the weights as float16, which halves the files. The scores must then be measured again, because they
            belong to the rounded weights.
        name: name on the card, such as ``user/model``; by default, the last part of ``out``.
        trust: the ``module:Class`` names that the files of the run may use.

    Returns the folder.

    Raises:
        UserError: not a run of a GAN, no score, or the folder contains other files.

    Example:
        >>> import orthogan
        >>> from orthogan.export import package
        >>> tiny = ["data.source=sprites", "data.count=64", "data.channels=1", "model.generator.channels=4"]
        >>> tiny += ["model.discriminator.channels=4", "training.batch_size=4", "training.steps=1"]
        >>> tiny += ["evaluation={every: 1, samples: 16, reference_samples: 16}", "out=run"]
        >>> run = orthogan.train(orthogan.load_config(None, tiny))  # doctest: +ELLIPSIS
        data: sprites-64, 64 images of 32 px; ...
        >>> folder = package(run, "sprites-model")
        >>> sorted(file.name for file in folder.glob("*.safetensors"))
        ['discriminator.safetensors', 'generator.safetensors']
        >>> orthogan.load(folder).resolution
        32
    """
    out = Path(out)
    if os.path.lexists(out):
        check_holds_only(out, FILES)
    where = chosen_device(device)
    opened = open_model(subject, device=where, trust=trust)
    folder, record = _checkpoint(opened)
    config, name = shared_config(opened.config), name or out.resolve().name
    if about.codes:
        config = _with_names(config, opened.generator, about.codes)
    if directions is None:
        directions = own_directions(opened.generator)
    if dims is not None:
        directions.select(dims)  # refuses what there is not, before minutes of scores
    metrics = [metric.name for metric in find_metrics(metrics)] if metrics else []
    step, images = int(opened.about.extra["step"]), int(opened.about.extra["images"])
    parts: dict[str, dict[str, Tensor]] = {
        "generator": {key: value.cpu() for key, value in opened.generator.state_dict().items()},
        "discriminator": {key: value.cpu() for key, value in opened.discriminator.state_dict().items()},
    }
    trained = own_scores(folder.parent.parent / METRICS, step)
    if half:
        parts = {net: {k: _halved(v) for k, v in tensors.items()} for net, tensors in parts.items()}
        opened.generator.load_state_dict(parts["generator"])
    scores = [] if half else [score for at, score in trained if at == step]
    if metrics:
        scores = [score for score in scores if score.metric not in metrics] + _measure(opened, metrics, samples, step)
    if not scores:
        raise UserError(
            f"{printable(subject)}: there is no score of step {step}"
            f"{' with float16 weights' * half}; measure some, such as with --metrics fid,kid,prc"
        )
    extra = {**opened.about.extra, "name": name}
    for net, form in (("generator", FORMAT), ("discriminator", DISCRIMINATOR_FORMAT)):
        header = metadata(config, opened.about.num_classes, extra, form=form)
        write_sealed(out / f"{net}.safetensors", parts[net], header)
    shown = _draw(opened, out, directions, dims, seed)
    facts = _facts(opened, record, about, scores, curves_of(trained, config.images_per_step), images)
    card = Card(_text(name, facts, config, shown, about), _block(name, facts, config, about), facts)
    write_text(out / CARD, card.markdown())
    return out


def _checkpoint(opened: OpenedModel) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the checkpoint that ``opened`` is in, and what it records about its run."""
    opened.need("generator")
    folder = None if opened.path is None else opened.path.parent.resolve()
    if folder is None or not checkpoint.is_checkpoint(folder) or not opened.has_discriminator:
        raise UserError(f"{printable(opened.name)}: is not a run of a GAN or a checkpoint of one")
    try:
        return folder, checkpoint.verify(folder)
    except checkpoint.Damaged as damage:
        raise UserError(f"{damage}; choose another checkpoint of the run") from None


def _with_names(config: Config, generator: Generator, names: Sequence[str]) -> Config:
    """Return ``config`` with the names of the codes, and give them to ``generator``."""
    if codes_of(generator) is None:
        raise UserError("names of codes: this model has no latent codes (model.generator.codes)")
    model = config.model
    try:
        section = CodesConfig.model_validate(model.generator.codes.model_dump() | {"names": list(names)})
    except ValidationError as error:
        raise UserError(f"names of codes: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    name_codes(generator, names)
    named = model.generator.model_copy(update={"codes": section})
    return config.model_copy(update={"model": model.model_copy(update={"generator": named})})


def _halved(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _measure(opened: OpenedModel, metrics: Sequence[str], samples: int, step: int) -> list[MetricResult]:
    config = opened.config
    scored = {"metrics": list(metrics), "best": metrics[0], "samples": samples, "reference_samples": None}
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=scored)})
    source = open_configured(config.data)
    device = next(opened.generator.parameters()).device
    return measure_generator(config, opened.generator, source, step=step, device=device)


def _draw(opened: OpenedModel, out: Path, directions: Directions, dims: Sequence[int] | None, seed: int) -> str:
    """Draw samples and a traversal; return a description of the rows of the traversal."""
    net, device = opened.generator, next(opened.generator.parameters()).device
    images = sample_images(net, range(CLAIMED), batch_size=CLAIMED, device=device)
    save_samples(images, out / SAMPLES, class_names=opened.class_names)
    chosen = most_effective(net, directions, device=device) if dims is None else list(dims)
    render(
        traverse(net, directions, dims=chosen, steps=9, seed=seed, batch_size=CLAIMED, device=device), out / TRAVERSAL
    )
    return f"{counted(len(chosen), 'direction')} ({directions.method})"


def most_effective(net: Generator, directions: Directions, *, device: torch.device) -> list[int]:
    """Return the (at most ``MOST_ROWS``) directions that change an image the most, in their order."""
    if len(directions) <= MOST_ROWS:
        return list(range(len(directions)))
    rows = traverse(net, directions, steps=3, batch_size=CLAIMED, device=device).scores
    strongest = sorted(range(len(rows)), key=lambda row: -rows[row]["change"])[:MOST_ROWS]
    return sorted(strongest)


def _facts(
    opened: OpenedModel,
    record: dict[str, Any],
    about: Description,
    scores: Sequence[MetricResult],
    curves: list[Curve],
    images: int,
) -> Facts:
    config, data = opened.config, record.get("data", {})
    source = None if ":" in config.data.source else DATA_SOURCES.get(config.data.source)
    nets = {"generator": opened.generator, "discriminator": opened.discriminator}
    return Facts(
        summary=about.summary or _summary(opened, data),
        resolution=config.data.resolution,
        channels=config.data.channels,
        classes=opened.class_names,
        parameters={net: sum(p.numel() for p in module.parameters()) for net, module in nets.items()},
        latent_dim=opened.generator.latent_dim,
        step=int(opened.about.extra["step"]),
        images=images,
        seconds=round(float(record["seconds"]), 1),
        machine=about.machine or _machine(record.get("machine", {})),
        command=_command(opened.config, about.config),
        data={
            "source": config.data.source,
            "images": data.get("count", 0),
            "origin": about.data_origin or (source.origin if source else ""),
            "license": about.data_license or (source.license if source else ""),
        },
        scores=[
            ScoreOfCard(
                label=score.label,
                value=round(score.value, 4),
                std=score.std,
                parts=score.parts,
                protocol=_plain(score.protocol),
            )
            for score in scores
        ],
        expected=curves,
    )


def _machine(record: dict[str, Any]) -> str:
    threads, processes = record.get("threads", 1), record.get("processes", 1)
    each = counted(threads, "CPU thread") if record.get("device", "cpu") == "cpu" else "a GPU"
    return each if processes == 1 else f"{processes} processes with {each} each"


def _plain(protocol: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(protocol))


def _summary(opened: OpenedModel, data: dict[str, Any]) -> str:
    config = opened.config
    kind = "class-conditional" if opened.about.num_classes else "unconditional"
    size = f"{size_in_words(config.data.resolution)} px, {color_in_words(config.data.channels)}"
    return f"A {kind} {config.model.generator.kind} GAN of {config.data.source} at {size}".replace("A un", "An un")


def _command(config: Config, file: str) -> str:
    """Return the command that trains this model: a shipped or user-named config, plus the keys that differ."""
    if not file:
        return ""
    named = load_config(file)
    flat, mine = flatten(named.model_dump()), flatten(config.model_dump())
    keys = [line.partition(": ")[0] for line in differences(flat, mine)]
    idle = tuple(f"{key}." for key in INCIDENTAL)
    keys = [key for key in keys if key == "seed" or not f"{key}.".startswith(idle)]
    words = [f"{key}={command_word(mine[key])}" for key in keys if key in mine]
    return " ".join(["orthogan train", shell_word(file), *words])


def _block(name: str, facts: Facts, config: Config, about: Description) -> dict[str, Any]:
    """Return the keys that the Hugging Face Hub knows."""
    model = config.model
    kinds = [
        kind for kind in (model.generator.kind, model.discriminator.norm.kind) if kind != "none" and ":" not in kind
    ]
    entry = {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"type": config.data.source, "name": config.data.source},
        "metrics": [{"type": score.label, "name": score.label, "value": score.value} for score in facts.scores],
    }
    return {
        "license": about.license,
        "library_name": "orthogan",
        "pipeline_tag": "unconditional-image-generation",
        "tags": list(dict.fromkeys(["gan", "image-generation", "orthogan", *kinds, *about.tags])),
        "datasets": [config.data.source],
        "metrics": list(dict.fromkeys(score.label for score in facts.scores)),
        "model-index": [{"name": name, "results": [entry]}],
    }


def _text(name: str, facts: Facts, config: Config, shown: str, about: Description) -> str:
    counts = ", ".join(f"{net} {count:,}" for net, count in facts.parameters.items())
    origin = facts.data["origin"]
    rows = {
        "Images": f"{size_in_words(sides(facts.resolution))}, {color_in_words(facts.channels)}",
        "Classes": ", ".join(facts.classes) if facts.classes else "none",
        "Nets": f"generator {config.model.generator.kind}, discriminator {config.model.discriminator.kind}",
        "Parameters": counts,
        "Latent": f"{facts.latent_dim} numbers",
        "Data": f"{facts.data['images']:,} images of {facts.data['source']}" + (f", {origin}" if origin else ""),
        "License of the data": facts.data["license"] or "not stated",
        "Training": f"{facts.images:,} real images, {facts.step:,} generator steps, random seed {config.seed}",
        "Time": f"{duration(facts.seconds or 0)}, scoring included, on {facts.machine}",
        "Command": f"`{facts.command}`" if facts.command else "",
    }
    lines = [
        f"# {name}\n",
        facts.summary.rstrip(".") + ".\n",
        f"![{CLAIMED} samples of {name}]({SAMPLES})\n",
        f"*Samples of the random seeds 0 to {CLAIMED - 1}.*\n",
        f"![What latent directions of {name} do]({TRAVERSAL})\n",
        f"*One row per direction: {shown}.*\n",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows.items() if value),
        f"\n## Use\n\n{usage(name, conditional=bool(facts.classes))}\n",
        "## Scores\n",
        "| Score | Value | Protocol |",
        "|---|---|---|",
    ]
    for score in facts.scores:
        spread = f" ± {score.std:.2g}" if score.std is not None else ""
        inner = "".join(f", {part} {value:.3f}" for part, value in score.parts.items())
        lines.append(f"| {score.label} | {score.value:.4g}{spread}{inner} | {fakes_in_words(score.protocol)} |")
    if any(score.label.startswith("FD[") for score in facts.scores):
        lines.append(
            "\nFD[...] is a Fréchet distance of other features than Inception's. It cannot be compared with FID."
        )
    for curve in facts.expected:
        points = _spaced(curve.points)
        lines += [
            f"\n{curve.label} during training ({fakes_in_words(curve.protocol)}):\n",
            "| Real images seen | " + " | ".join(f"{point.images:,}" for point in points) + " |",
            "|---|" + "---|" * len(points),
            f"| {curve.label} | " + " | ".join(f"{point.value:.4g}" for point in points) + " |",
        ]
    if about.notes:
        lines.append(f"\n{about.notes.strip()}")
    return "\n".join(lines) + "\n"


def _spaced(points: Sequence[Point]) -> list[Point]:
    """Return at most ``MOST_ROWS`` of the points, including the first and the last."""
    if len(points) <= MOST_ROWS:
        return list(points)
    return [points[round(i * (len(points) - 1) / (MOST_ROWS - 1))] for i in range(MOST_ROWS)]
