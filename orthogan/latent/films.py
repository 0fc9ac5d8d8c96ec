"""Films: from one picture to the next, through all that lies between, without captions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from orthogan import __version__
from orthogan.arguments import checked
from orthogan.drawing.grid import default_scale, enlarge, save_png
from orthogan.errors import UserError
from orthogan.io.write import check_folder, write_bytes
from orthogan.latent.interpolation import between
from orthogan.latent.invert.project import Against
from orthogan.latent.latents import Latents
from orthogan.latent.render.animation import READABLE_SIDE, need_av
from orthogan.latent.render.loop import LARGEST_SIDE, LOOPS, encode_loop
from orthogan.layers.batch_norm import ConditionalBatchNorm2d
from orthogan.models.generate import (
    generate,
    in_space,
    model_hash,
    sample_label,
    sample_latents,
    truncate_in_space,
)
from orthogan.models.label_table import label_table
from orthogan.models.modes import get_device
from orthogan.models.noise import noise_maps, replaced
from orthogan.models.protocol import Generator, as_generator
from orthogan.progress import progress_bar
from orthogan.rng import generator as seeded

FilmWalk = Literal["line", "sphere", "path"]
FILM_WALKS: tuple[FilmWalk, ...] = get_args(FilmWalk)
FINER = 4  # points of the walk per frame, from which frames of even speed are chosen
MOST_FRAMES = 20_000


@dataclass(frozen=True)
class Film:
    """``frames``: uint8 (n, c, h, w) in their order. ``loop``: whether the last is followed by the first."""

    frames: np.ndarray
    fps: int
    loop: bool
    metadata: dict[str, str] = field(default_factory=dict)


@checked
def keyframes(
    generator: nn.Module,
    seeds: Sequence[int] = (),
    latents: Sequence[Latents] = (),
    *,
    space: str = "z",
    classes: Sequence[int] | None = None,
    truncation: float = 1.0,
) -> Latents:
    """Return the latents of ``seeds``, then those of ``latents``, all in one ``space``.

    ``classes``: of a conditional generator, as in ``sample_images``. ``truncation``: of the seeds. Raises ``UserError``
    if there are none, or latents that cannot be moved to the space.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.films import keyframes
        >>> keyframes(orthogan.load("sprites-sngan"), [3, 8]).matrix.shape
        (2, 16)
    """
    net = as_generator(generator)
    if (count := len(seeds) + sum(map(len, latents))) > MOST_FRAMES:
        raise UserError(f"{count:,} keyframes: at most {MOST_FRAMES:,}, one per frame; use fewer")
    rows: list[Tensor] = []
    labels: list[int | None] = []
    names: list[str] = []
    for seed in seeds:
        label = sample_label(net, seed, classes)
        seen = in_space(net, space, y=None if space == "z" else label)
        rows.append(truncate_in_space(sample_latents(seen, [seed]), truncation, space)[0])
        labels.append(label)
        names.append(str(seed))
    for one in latents:
        one.check(net)
        for index, name in enumerate(one.names):
            rows.append(one.in_space(net, index, space))
            labels.append(one.label(index))
            names.append(name)
    if not rows:
        raise UserError("no keyframes: name at least one seed, such as 3,8,15, or a file of latents")
    return Latents(
        torch.stack(rows).numpy(),
        space,
        labels=[label for label in labels if label is not None] or None,
        names=names,
        model_hash=model_hash(net),
    )


@checked
def film(
    generator: nn.Module,
    keys: Latents,
    *,
    seconds: float | Sequence[float] = 2.0,
    fps: int = 25,
    walk: FilmWalk | None = None,
    loop: bool = True,
    even: Against | None = None,
    noise: Literal["fixed", "varied"] = "fixed",
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> Film:
    """Draw the frames of a walk through the keyframes ``keys``.

    Args:
        seconds: from one keyframe to the next; or one number for each keyframe that another one follows, in a loop also
            for the last.
        walk: "line", "sphere" (``slerp_even``, for normal latents), or "path", a smooth curve without corners
            (Catmull-Rom; in z at the lengths of the sphere). By default the sphere in z, else the line.
        loop: return from the last keyframe to the first.
        even: makes the pictures change evenly: the frames are chosen along the whole walk so that the distance between
            neighbors, ``against`` one another, is equal (with several ``seconds``, within each transition). None: the
            latents move evenly.
        noise: "varied" draws new noise maps for every frame.
        seed: of the varied noise.

    Raises:
        UserError: too many frames, an unknown walk, or something that this generator does not have.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.films import film, keyframes
        >>> generator = orthogan.load("sprites-sngan")
        >>> made = film(generator, keyframes(generator, [3, 8]), seconds=0.2, progress=False)
        >>> made.frames.shape
        (10, 1, 32, 32)
    """
    net = as_generator(generator)
    walk = walk or ("sphere" if keys.space == "z" else "line")
    if walk not in FILM_WALKS:
        raise UserError(f"walk='{walk}': choose {', '.join(FILM_WALKS)}")
    if walk == "sphere" and keys.space != "z":
        raise UserError(f"walk='sphere' in space '{keys.space}': only latents of z lie near a sphere; use line or path")
    maps = noise_maps(net) if noise == "varied" else {}
    if noise == "varied" and not maps:
        raise UserError("noise='varied': this generator has no noise maps; omit it")
    legs = len(keys) if loop and len(keys) > 1 else max(1, len(keys) - 1)
    times = [seconds] * legs if isinstance(seconds, int | float) else list(seconds)
    if len(times) != legs:
        raise UserError(
            f"seconds: {len(times)} numbers, but {len(keys)} keyframes have {legs} transitions; give {legs}"
        )
    each = [round(time * fps) for time in times]
    count = sum(each) if loop else sum(each) + 1
    if min(each) < 1 or count > MOST_FRAMES:
        raise UserError(f"{count:,} frames: from 1 per keyframe to {MOST_FRAMES:,} in all; change the seconds")
    keys.check(net)

    def at(place: float) -> tuple[Tensor, int | None, int | None, float]:
        """Return the latent at ``place`` (0: the first keyframe, 1: the second, …), and two classes and their share."""
        first = min(int(place), legs - 1)
        second, share = (first + 1) % len(keys), place - first
        return _point(keys, first, share, walk, loop), keys.label(first), keys.label(second), share

    def draw(places: np.ndarray, what: str) -> np.ndarray:
        shown: list[np.ndarray] = []
        groups = np.array_split(places, max(1, -(-len(places) // batch_size)))
        for part in progress_bar(groups, desc=what, unit="batch", disable=not progress, leave=False):
            first = sum(map(len, shown))  # the noise of a frame depends on its number, not on the batches
            shown.append(_draw(net, keys.space, [at(float(place)) for place in part], maps, seed, first))
        return np.concatenate(shown)

    starts = np.concatenate([np.arange(frames) / frames + leg for leg, frames in enumerate(each)])
    places = starts if loop else np.append(starts, legs)
    if even is not None and len(keys) > 1:
        fine = np.linspace(0, legs, FINER * count + 1)
        lengths = _lengths(draw(fine, "measuring the speed"), even, get_device(net), batch_size)
        total = np.concatenate([[0], np.cumsum(lengths)])
        if total[-1] > 0:
            if len(set(times)) == 1:
                wanted = np.arange(count) / (count if loop else max(1, count - 1)) * total[-1]
            else:
                wanted = np.interp(places, np.arange(legs + 1), np.interp(np.arange(legs + 1), fine, total))
            places = np.interp(wanted, total, fine)
    about = {
        "software": f"orthogan {__version__}",
        "model_hash": keys.model_hash,
        "space": keys.space,
        "walk": walk,
        "keyframes": ",".join(keys.names),
        "classes": "none" if keys.labels is None else ",".join(map(str, keys.labels)),
        "seconds": ",".join(f"{time:g}" for time in (times if len(set(times)) > 1 else times[:1])),
        "loop": str(loop).lower(),
        "speed": "latent" if even is None else "pictures",
        "noise": noise,
    }
    return Film(draw(places, "drawing frames"), fps, loop, about)


def check_film(path: str | os.PathLike[str], side: int | None = None) -> None:
    """Raise ``UserError`` unless ``save_film`` can write this path; check it before a long film."""
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in LOOPS:
        raise UserError(f"{path}: a film is written as {', '.join(LOOPS)}, or to a folder (no suffix) of .png files")
    if not suffix:
        check_folder(path)
    if suffix == ".mp4":
        need_av()
    if side is not None and not 1 <= side <= LARGEST_SIDE:
        raise UserError(f"size {side}: from 1 to {LARGEST_SIDE} pixels")


def save_film(made: Film, path: str | os.PathLike[str], *, side: int | None = None, smooth: bool = False) -> Path:
    """Write a film as ``.mp4``, ``.webp`` or ``.gif``, or as ``frame000000.png`` … in a folder (no suffix).

    ``side``: width in pixels (default: small images are magnified). ``smooth``: resample with a Lanczos filter;
    otherwise pixels stay sharp squares. Raises ``UserError`` for another suffix or a missing encoder.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.films import film, keyframes, save_film
        >>> generator = orthogan.load("sprites-sngan")
        >>> made = film(generator, keyframes(generator, [3, 8]), seconds=0.1, progress=False)
        >>> save_film(made, "film.gif", side=64).name
        'film.gif'
    """
    check_film(path, side)
    height, width = made.frames.shape[-2:]
    wide = width * default_scale(height, width, READABLE_SIDE) if side is None else side
    suffix = Path(path).suffix.lower()
    if not suffix:
        folder = Path(path)
        for number, frame in enumerate(made.frames):
            save_png(enlarge(frame, wide, smooth=smooth), folder / f"frame{number:06d}.png", made.metadata)
        return folder
    order = list(range(len(made.frames)))
    data = encode_loop(list(made.frames), order, suffix, side=wide, smooth=smooth, fps=made.fps, about=made.metadata)
    return write_bytes(path, data)


def _point(keys: Latents, first: int, share: float, walk: FilmWalk, loop: bool) -> Tensor:
    """Return the latent at ``share`` of the way from keyframe ``first`` to the next."""
    count = len(keys)
    rows = torch.from_numpy(keys.matrix.copy())
    a, b = rows[first], rows[(first + 1) % count]
    if walk != "path" or count < 3:
        return between(a, b, share, sphere=keys.space == "z" and walk != "line")
    before, after = first - 1, first + 2
    p = rows[before % count if loop else max(0, before)].double()
    q = rows[after % count if loop else min(count - 1, after)].double()
    x, y, t = a.double(), b.double(), share
    curve = x + 0.5 * t * ((y - p) + t * (2 * p - 5 * x + 4 * y - q + t * (3 * (x - y) + q - p)))
    if keys.space == "z":  # normal latents are about equally long
        length = (1 - t) * x.norm() + t * y.norm()
        curve = curve * (length / curve.norm()) if curve.norm() > 0 else curve
    return curve.to(a.dtype)


def _draw(
    net: Generator,
    space: str,
    points: Sequence[tuple[Tensor, int | None, int | None, float]],
    maps: dict[str, Tensor],
    seed: int,
    first: int,
) -> np.ndarray:
    """Draw the pictures uint8 (n, c, h, w) of latents, whose classes fade into each other."""
    z = torch.stack([point[0] for point in points])
    labels = [point[1] for point in points]
    seen = in_space(net, space, y=None if space == "z" else labels[0])
    with ExitStack() as stack:
        if maps:
            drawn = {name: _fresh(one, name, seed, range(first, first + len(z))) for name, one in maps.items()}
            stack.enter_context(replaced(net, drawn))
        given = [label for label in labels if label is not None] if seen.num_classes else None
        if given is not None:
            others = [point[2] for point in points]
            shares = [point[3] for point in points]
            if any(a != b and share for a, b, share in zip(given, others, shares, strict=True)):
                stack.enter_context(faded(net, [0 if b is None else b for b in others], shares))
        return generate(seen, z, given, batch_size=len(z))


def _fresh(like: Tensor, name: str, seed: int, frames: Sequence[int]) -> Tensor:
    """Return a noise map for each of ``frames``, (n, 1, s, s)."""
    sources = [seeded("cpu", seed, "film noise", name, frame) for frame in frames]
    return torch.cat([torch.randn(like.shape, generator=source) for source in sources]).to(like)


@contextmanager
def faded(generator: Generator, others: Sequence[int], shares: Sequence[float]) -> Iterator[None]:
    """Context in which each class vector of a batch is mixed with that of another class.

    It applies to all ``nn.Embedding`` and conditional batch norms with one row per class. ``others``, ``shares``: for
    each image the other class, and how much of it. Raises ``UserError`` if the generator has no such vectors.
    """
    vectors = label_table(generator)
    rows = generator.num_classes if vectors is None else vectors.vectors.shape[1]
    tables = [part for part in generator.modules() if _takes_class(part, rows)]
    if not tables:
        raise UserError(
            f"{type(generator).__name__} has no class vectors to mix, so its classes cannot fade into each other; "
            "choose one class"
        )
    place = get_device(generator)
    to, share = torch.tensor(others, device=place), torch.tensor(shares, device=place)
    if vectors is not None:
        to = vectors(to)

    def mix(table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # both kinds of table are linear in the class vectors, so their outputs are mixed
        other = table.forward(*inputs[:-1], to)
        return torch.lerp(output, other, share.to(output).view(-1, *[1] * (output.ndim - 1)))

    handles = [table.register_forward_hook(mix) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _takes_class(part: nn.Module, count: int) -> bool:
    if isinstance(part, ConditionalBatchNorm2d):
        return len(part.gain) == count
    return isinstance(part, nn.Embedding) and part.num_embeddings == count


@torch.no_grad()
def _lengths(images: np.ndarray, against: Against, place: torch.device, batch_size: int) -> np.ndarray:
    """Return the distances (n - 1,) between neighbors of images (n, c, h, w)."""
    found = []
    for start in range(0, len(images) - 1, batch_size):
        part = torch.from_numpy(images[start : start + batch_size + 1]).float().to(place) / 127.5 - 1
        found.append(against(part[:-1])(part[1:]).clamp(min=0).sqrt().cpu().double().numpy())
    return np.concatenate(found)
