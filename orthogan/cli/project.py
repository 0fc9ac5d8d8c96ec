"""Find the latents of your own pictures, so that a model can show and edit them.

It prints the error of each picture, compared with random pictures of the model and of its training data, and writes the
latents and a picture of the differences. The same command resumes interrupted work.

Example: orthogan project faces-srngan me.jpg you.png --out mine.safetensors
"""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.cli.arguments import (
    add_classes,
    add_features,
    add_json,
    add_net,
    add_seed,
    add_subject,
    real,
    refuse_unused,
    whole,
)
from orthogan.cli.subjects import check_subject, open_subject, read_class, read_distance
from orthogan.errors import UserError
from orthogan.io.read import check_regular, printable, shown
from orthogan.words import counted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from orthogan.cli.parser import Parser
    from orthogan.evaluation.paths.distances import Distance
    from orthogan.latent.invert import Projection
    from orthogan.models.open import OpenedModel
    from orthogan.models.protocol import Generator

REALS = 16  # training pictures that give the error of a wrong picture
MOST_PICTURES = 10_000
FAKE, REAL = "picture of the model", "training picture"


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of the command."""
    add_subject(parser)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="image files, or folders of them")
    parser.add_argument(
        "--out",
        default="projected.safetensors",
        help="file of the latents; a .png of the same name shows the result (default: projected.safetensors)",
    )
    parser.add_argument(
        "--space", help="latent space: z, or w or w+ if the generator has them (default: w if it has it, else z)"
    )
    add_classes(parser, "class of the pictures, by number or name (default: that of the most similar picture)")
    parser.add_argument(
        "--crop",
        type=_box,
        default="center",
        metavar="center|LEFT,TOP,SIDE",
        help="square that is cut out of each picture, in pixels (default: center, the largest one)",
    )
    parser.add_argument("--steps", type=whole(1, 10**6), default=400, help="optimization steps (default: 400)")
    parser.add_argument(
        "--starts",
        type=whole(1, 256),
        default=4,
        help="starting points per picture, of which the best result is kept (default: 4)",
    )
    parser.add_argument(
        "--candidates",
        type=whole(1, 10**6),
        default=256,
        help="random images of the model, from which the most similar are chosen as starting points (default: 256)",
    )
    parser.add_argument(
        "--rate",
        type=real(1e-9, 1e3),
        default=0.1,
        help="learning rate, in standard deviations of the prior (default: 0.1)",
    )
    add_features(parser)
    parser.add_argument(
        "--feature-weight",
        type=real(0, 1e6),
        default=1.0,
        help="weight of the features in the loss; the weight of the pixels is 1 (default: 1)",
    )
    parser.add_argument(
        "--prior",
        type=real(0, 1e6),
        default=1.0,
        help="weight of the penalty on latents that are farther from the mean than 99%% of the prior (default: 1)",
    )
    parser.add_argument("--noise", action="store_true", help="also fit the noise maps of a generator that has them")
    parser.add_argument(
        "--encoder",
        type=whole(1, 10**6),
        metavar="STEPS",
        help="first train an encoder on images of the model for this many steps, for one more starting point",
    )
    parser.add_argument(
        "--tune",
        metavar="MODEL",
        help="then fine-tune the generator until it shows the pictures, and write it to this .safetensors file",
    )
    parser.add_argument(
        "--tune-steps", type=whole(1, 10**6), default=200, help="training steps with --tune (default: 200)"
    )
    parser.add_argument(
        "--tune-rate", type=real(1e-9, 1), default=3e-4, help="learning rate with --tune (default: 0.0003)"
    )
    parser.add_argument(
        "--data",
        help="folder or zip of training pictures to compare with (default: the training data of the subject)",
    )
    parser.add_argument(
        "--no-controls",
        action="store_true",
        help="do not also project a picture of the model and a training picture, for comparison",
    )
    parser.add_argument(
        "--batch-size", type=whole(1, 1 << 16), default=64, help="images per step, over all starts (default: 64)"
    )
    add_seed(parser)
    add_json(parser, "the numbers of each picture as JSON lines")
    add_net(parser)


def run(arguments: Namespace) -> None:
    """Project the pictures, and write latents, picture and model."""
    _check(arguments)
    files = _files(arguments.pictures)
    from orthogan.drawing.grid import save_png
    from orthogan.io.write import remove
    from orthogan.latent.invert import project
    from orthogan.latent.invert.sheet import sheet
    from orthogan.models.generate import image_size
    from orthogan.training.stop import StopSignal

    subject, net, device = open_subject(arguments.subject, arguments)
    if arguments.tune and (subject.path is None or subject.kind != "generator"):
        raise UserError(f"--tune: {subject.name} has no config to write into a model file; project a model from a file")
    label = read_class(arguments, subject)
    channels, side = image_size(net)
    pictures = [_read(file, side, channels, arguments.crop) for file in files]
    labels: list[int | None] = [label] * len(files)
    names = _names(files)
    count = len(files)
    distance = read_distance(arguments.features if arguments.feature_weight else "none", device)
    reals, real_labels = _reals(arguments, subject, side, channels)
    if not arguments.no_controls:
        fake, fake_label = _fake(net, arguments.seed, label)
        pictures, labels, names = [*pictures, fake], [*labels, fake_label], [*names, FAKE]
        if reals is not None:
            pictures, labels, names = [*pictures, reals[-1]], [*labels, real_labels[-1]], [*names, REAL]
    import numpy as np

    partial = Path(arguments.out).with_suffix(".partial.safetensors")
    tuning = Path(arguments.out).with_suffix(".tuning.safetensors")
    with StopSignal() as stop:
        found = project(
            net,
            np.stack(pictures),
            space=arguments.space,
            labels=labels,
            names=names,
            steps=arguments.steps,
            starts=arguments.starts,
            candidates=arguments.candidates,
            rate=arguments.rate,
            against=None if distance is None else distance.against,
            feature_weight=arguments.feature_weight,
            prior_weight=arguments.prior,
            noise=arguments.noise,
            guess=None if arguments.encoder is None else _encoder(net, arguments),
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            kept=partial,
            protocol={
                "features": "none" if distance is None else f"{distance.name}, {distance.weights}",
                "encoder": str(arguments.encoder or "none"),
                "crop": "center" if arguments.crop == "center" else ",".join(map(str, arguments.crop)),
                "subject": str(arguments.subject),
            },
            stopped=lambda: stop.name,
        )
        if reals is not None:
            found = _beside(found, reals[:REALS])
        tuned_images = None
        mine = _first(found, count)
        if arguments.tune:
            mine, tuned_images = _tune(net, mine, subject, distance, arguments, kept=tuning, stopped=lambda: stop.name)
    written = mine.latents.save(arguments.out)
    _print(arguments, found, mine, count)
    drawn = save_png(
        sheet(found if tuned_images is None else mine, tuned_images), written.with_suffix(".png"), mine.latents.protocol
    )
    for file in (partial, tuning):
        remove(file)
    if not arguments.json:
        print(
            f"{count} {'picture' if count == 1 else 'pictures'} in {found.latents.space} of {subject.name}: {written}"
        )
        print(f"pictures and differences: {drawn}")
        if arguments.tune:
            print(f"tuned model: {arguments.tune}; use it together with these latents")


def _check(arguments: Namespace) -> None:
    """Check the options before a model is opened. Raises ``UserError``."""
    for option, path in (("--out", arguments.out), ("--tune", arguments.tune)):
        if path is not None and Path(path).suffix != ".safetensors":
            raise UserError(f"{option} {path}: the name of the file must end in .safetensors")
    if arguments.tune and os.path.abspath(arguments.tune) == os.path.abspath(arguments.out):
        raise UserError(f"--tune {arguments.tune}: this is the file of the latents; choose another name for the model")
    if arguments.tune is None:
        refuse_unused(arguments, ["tune_steps", "tune_rate"], "applies only with --tune")
    if arguments.features == "none":
        refuse_unused(arguments, ["feature_weight"], "does not apply with --features none")
    check_subject(arguments.subject)


def _box(text: str) -> tuple[int, int, int] | str:
    if text == "center":
        return text
    try:
        left, top, side = (int(word) for word in text.split(","))
    except ValueError:
        raise ArgumentTypeError(
            f"{shown(text)}: must be center, or LEFT,TOP,SIDE of a square in pixels, such as 40,20,256"
        ) from None
    return left, top, side


def _files(given: Sequence[str]) -> list[Path]:
    """List the image files, those of folders by name. Raises ``UserError``."""
    found: list[Path] = []
    for text in given:
        if os.path.isdir(text):
            from orthogan.data.formats.stores import is_image_name, other_formats

            files = sorted(file for file in Path(text).iterdir() if file.is_file())
            inside = [file for file in files if is_image_name(file.name)]
            if others := other_formats(file.name for file in files):
                others = f"formats that orthogan does not read: {others}; save them as PNG or JPEG"
                if inside:
                    print(f"orthogan: {printable(text)} also has images in {others}", file=sys.stderr)
            if not inside:
                raise UserError(
                    f"{printable(text)}: there are no image files in this folder"
                    + (f", only some in {others}" if others else "")
                )
            found += inside
        else:
            check_regular(text)
            found.append(Path(text))
    if len(found) > MOST_PICTURES:
        raise UserError(f"{len(found):,} pictures: at most {MOST_PICTURES:,} at once; choose fewer")
    return list(dict.fromkeys(found))


def _names(files: Sequence[Path]) -> list[str]:
    """Name each picture by its file, or by its path where two files have the same name."""
    stems = [file.stem for file in files]
    return [stem if stems.count(stem) == 1 else str(file) for stem, file in zip(stems, files, strict=True)]


def _read(file: Path, side: int, channels: int, crop: tuple[int, int, int] | str) -> np.ndarray:
    """Read a picture as uint8 (channels, side, side). Raises ``UserError`` naming the file."""
    from orthogan.data.formats.decode import UnreadableImage, decode
    from orthogan.io.read import read_regular

    try:
        box = None if isinstance(crop, str) else crop
        return decode(read_regular(file), resolution=side, channels=channels, box=box).array
    except UnreadableImage as error:
        raise UserError(f"{printable(file)}: {error}") from error


def _reals(
    arguments: Namespace, subject: OpenedModel, side: int, channels: int
) -> tuple[list[np.ndarray] | None, list[int | None]]:
    """Open some training pictures and their classes; none, with a message, where they are not available."""
    from orthogan.cli._scores import trusted_config
    from orthogan.data import open_configured, open_source
    from orthogan.data.sources import generated_sources
    from orthogan.rng import generator as seeded

    try:
        if arguments.data:
            source = open_source(arguments.data, resolution=side, channels=channels)
        elif subject.path is None:
            return None, []
        else:
            data = trusted_config(arguments, subject, "add --data or --trust").data
            few = {"count": 8 * REALS} if data.source in generated_sources() else {}
            source = open_configured(data.model_copy(update={**few, "download": False}))
    except UserError as error:
        if arguments.data:
            raise
        print(f"orthogan: no comparison with training pictures: {error}", file=sys.stderr)
        return None, []
    import torch

    order = torch.randperm(len(source), generator=seeded("cpu", arguments.seed, "training pictures"))[: REALS + 1]
    chosen = [source[int(index)] for index in order]
    known = subject.generator.num_classes > 0 and source.labels is not None
    return [image for image, _ in chosen], [int(label) if known else None for _, label in chosen]


def _fake(net: Generator, seed: int, label: int | None) -> tuple[np.ndarray, int | None]:
    """Draw the picture of the model that is projected for comparison, at a seed that is none of the candidates."""
    from orthogan.latent import sample_images
    from orthogan.rng import derive

    samples = sample_images(net, [derive(seed, "fake for comparison")], None if label is None else [label])
    return samples.images[0], None if samples.labels is None else samples.labels[0]


def _encoder(net: Generator, arguments: Namespace) -> Callable[[np.ndarray, str, int | None], Tensor]:
    """Return the guess of an encoder, which is trained on the first call for each space and class."""
    from functools import cache

    import torch

    from orthogan.disentanglement import train_encoder
    from orthogan.latent import Latents
    from orthogan.latent.discovery.native import latent_axes
    from orthogan.models.generate import in_space

    @cache
    def trained(space: str, label: int | None) -> object:
        axes = replace(latent_axes(in_space(net, space, y=None if space == "z" else label)), space=space)
        print(f"orthogan: training an encoder for {arguments.encoder} steps", file=sys.stderr)
        return train_encoder(
            net,
            axes,
            steps=arguments.encoder,
            fakes=max(2048, min(20_000, 32 * arguments.encoder)),
            fresh=256,
            batch_size=64,
            precision="float32" if arguments.device == "cpu" else "bfloat16",
            y=label,
            seed=arguments.seed,
            progress=True,
        )

    def guess(pictures: np.ndarray, space: str, label: int | None) -> Tensor:
        inner = "w" if space == "w+" else space
        encoder = trained(inner, label)
        codes = torch.from_numpy(encoder(pictures)).float()  # pyright: ignore
        coordinates = encoder.coordinates  # pyright: ignore
        start = coordinates.put(torch.zeros(len(codes), coordinates.rows.shape[1]), codes)
        found = Latents(start.numpy(), inner, labels=None if label is None else [label] * len(codes))
        return torch.stack([found.in_space(net, i, space) for i in range(len(codes))])

    return guess


def _beside(found: Projection, reals: Sequence[np.ndarray]) -> Projection:
    """Add the mean error of wrong training pictures to the scores."""
    import numpy as np

    wrong = np.stack(reals).astype(np.float64)
    errors = [float(np.sqrt(((wrong - one) ** 2).mean((1, 2, 3))).mean()) for one in found.targets]
    return replace(found, latents=replace(found.latents, scores={**found.latents.scores, "reals": errors}))


def _first(found: Projection, count: int) -> Projection:
    """Return the projection without the pictures for comparison."""
    return replace(
        found,
        latents=found.latents.select(range(count)),
        targets=found.targets[:count],
        images=found.images[:count],
        scales=found.scales[:count],
    )


def _tune(
    net: Generator,
    mine: Projection,
    subject: OpenedModel,
    distance: Distance | None,
    arguments: Namespace,
    *,
    kept: Path,
    stopped: Callable[[], str | None],
) -> tuple[Projection, np.ndarray]:
    """Tune and write the model, and return the latents as its own, with their errors before and after."""
    import numpy as np

    from orthogan.latent.invert import tune
    from orthogan.models import save_generator
    from orthogan.models.generate import model_hash

    tuned = tune(
        net,
        mine,
        steps=arguments.tune_steps,
        rate=arguments.tune_rate,
        against=None if distance is None else distance.against,
        feature_weight=arguments.feature_weight,
        seed=arguments.seed,
        kept=kept,
        stopped=stopped,
    )
    extra = {**subject.about.extra, "tuned": f"{counted(len(mine.latents), 'picture')}, {arguments.tune_steps} steps"}
    save_generator(arguments.tune, tuned, config=subject.config, extra=extra)
    images = replace(mine.latents, model_hash="").images(tuned)
    squares = (images.astype(np.float64) - mine.targets) ** 2
    errors = [float(value) for value in np.sqrt(squares.mean((1, 2, 3)))]
    before = mine.latents.scores
    latents = replace(
        mine.latents,
        model_hash=model_hash(tuned),
        scores={**before, "error": errors, "before tuning": before["error"]},
        protocol={**mine.latents.protocol, "tuned": f"{arguments.tune_steps} steps, rate {arguments.tune_rate:g}"},
    )
    return replace(mine, latents=latents), images


def _print(arguments: Namespace, found: Projection, mine: Projection, count: int) -> None:
    """Print the numbers of each picture, and of those for comparison below."""
    from orthogan.io.terminal import text_table

    names = found.latents.names
    scores = {key: list(values) for key, values in found.latents.scores.items()}
    if "before tuning" in mine.latents.scores:
        scores["tuned"] = [*mine.latents.scores["error"], *[float("nan")] * (len(names) - count)]
    if arguments.json:
        for i, name in enumerate(names):
            values = {key: value[i] for key, value in scores.items() if value[i] == value[i]}
            kind = "picture" if i < count else "comparison"
            print(json.dumps({"name": name, "kind": kind, "space": found.latents.space, **values}))
        return
    heads = {
        "error": "error",
        "tuned": "tuned",
        "nearest": "nearest fake",
        "fakes": "random fakes",
        "reals": "random reals",
        "features": "features",
        "distance": "distance",
        "farther": "farther",
    }
    shown_keys = [key for key in heads if key in scores]
    rows = []
    for i, name in enumerate(names):
        cells = []
        for key in shown_keys:
            value = scores[key][i]
            form = {"farther": ".0%", "features": ".2f", "distance": ".2f"}.get(key, ".1f")
            text = format(value, form)
            cells.append("" if value != value else text)
        rows.append([printable(name if i < count else f"({name})"), *cells])
    print(text_table(rows, "l" + "r" * len(shown_keys), ["picture", *(heads[key] for key in shown_keys)]))
    print("error, fakes, reals: root mean square difference of pixels in gray levels of 255")
    if "features" in scores:
        print("features: distance of features; 1 is that of random fakes")
    print("distance: from the mean of the prior, 1 is usual; farther: share of the prior that is at least as far")
