"""What each command does with its arguments, in terms of the public functions."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
from accelerate.state import PartialState

from orthogan import training
from orthogan.config import Config
from orthogan.config_file import dump, load_config
from orthogan.errors import UserError
from orthogan.latent import (
    Directions,
    first_layer_directions,
    native_directions,
    parse_classes,
    parse_seeds,
    render,
    sample_images,
    save_samples,
)
from orthogan.latent import traverse as walk
from orthogan.latent.render import check_suffix
from orthogan.models.protocol import Generator
from orthogan.models.saved import Saved, describe, load
from orthogan.training.resume import read_records

BATCH = 64  # images at a time when drawing


def config(arguments: Namespace) -> None:
    """Print the resolved config."""
    print(dump(load_config(arguments.config, arguments.overrides), explain=arguments.explain), end="")


def train(arguments: Namespace) -> None:
    """Train, or only try."""
    settings = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        for name, value in training.dry_run(settings).items():
            print(f"{name:>16}: {value:,}" if isinstance(value, int) else f"{name:>16}: {value}")
        return
    run = training.train(settings, allow_config_change=arguments.allow_config_change)
    if PartialState().is_main_process:
        _report(run, settings)


def _report(run: Path, settings: Config) -> None:
    """What a finished run holds, and how its score moved."""
    print(f"{run}: complete, {settings.training.steps} steps")
    file = run / "metrics.jsonl"
    scores = [r for r in read_records(file) if r.get("metric") == settings.evaluation.best] if file.exists() else []
    if scores:
        first, last = scores[0], scores[-1]
        steps = [record["protocol"]["step"] for record in (first, last)]
        print(f"{last['label']}: {first['value']:.2f} (step {steps[0]}) -> {last['value']:.2f} (step {steps[1]})")
    print(f"pictures: {run / 'reals.png'}, {run / 'fakes_init.png'}, {sorted(run.glob('fakes-*.png'))[-1]}")


def sample(arguments: Namespace) -> None:
    """Draw images."""
    saved, net, device = _open(arguments)
    classes = None
    if arguments.classes is not None:
        classes = parse_classes(arguments.classes, net.num_classes, saved.class_names)
    images = sample_images(
        net, parse_seeds(arguments.seeds), classes, arguments.truncation, batch_size=BATCH, device=device
    )
    written = save_samples(images, arguments.out, class_names=saved.class_names)
    print(f"{len(images.seeds)} images of {saved.path}: {written[0] if len(written) == 1 else arguments.out}")


def traverse(arguments: Namespace) -> None:
    """Show what each direction does."""
    check_suffix(arguments.out)
    saved, net, device = _open(arguments)
    if arguments.directions:
        directions = Directions.load(arguments.directions)
    else:
        directions = {"native": native_directions, "svd": first_layer_directions}[arguments.method](net)
    if arguments.save_directions:
        directions.save(arguments.save_directions)
        print(f"{len(directions)} directions: {arguments.save_directions}")
    label = None
    if arguments.label is not None:
        (label,) = parse_classes(arguments.label, net.num_classes, saved.class_names)[:1]
    walked = walk(
        net,
        directions,
        dims="all" if arguments.dims == "all" else parse_seeds(arguments.dims),
        range=arguments.range,
        steps=arguments.steps,
        seed=arguments.seed,
        y=label,
        truncation=arguments.truncation,
        base=arguments.base,
        centred=arguments.centred,
        control=arguments.control,
        batch_size=BATCH,
        device=device,
    )
    print(f"{len(walked)} directions of {saved.path}: {render(walked, arguments.out)}")


def _open(arguments: Namespace) -> tuple[Saved, Generator, torch.device]:
    device = _device(arguments.device)
    ema = not arguments.no_ema
    return describe(arguments.subject, ema=ema), load(arguments.subject, device=device, ema=ema), device


def _device(name: str | None) -> torch.device:
    if name is None:
        return PartialState(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available())).device
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device
