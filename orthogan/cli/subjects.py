"""Steps that several commands share: check that files exist, open a generator, and read its options."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orthogan.errors import UserError
from orthogan.io.read import check_regular, printable, shown, user_path
from orthogan.models.hub import find_named
from orthogan.registry import did_you_mean

# torch and what builds on it take seconds to import, so a command checks its files first
if TYPE_CHECKING:
    import torch

    from orthogan.data import ImageSource
    from orthogan.disentanglement import OracleReader
    from orthogan.evaluation.paths.distances import Distance
    from orthogan.latent import Directions, Latents
    from orthogan.models.open import OpenedModel
    from orthogan.models.protocol import Generator

BATCH = 64  # images per batch
CONFIGS = (".yaml", ".yml")


def check_subject(path: str) -> None:
    """Raise ``UserError`` if there is no such run, checkpoint, file or model; download one of the Hub."""
    if ":" not in path and not os.path.lexists(path):
        find_named(path)


def check_file(path: str | None) -> None:
    """Raise ``UserError`` if there is no such file."""
    if path:
        check_regular(path)


def check_config(path: str | None) -> None:
    """Raise ``UserError`` if ``path`` or one of its base files does not exist or is not YAML."""
    from orthogan.config.read import read_chain

    if path:
        read_chain(Path(path))


def check_data(name: str | None) -> None:
    """Raise ``UserError`` if ``name`` is neither a data source nor a config that can be read."""
    from orthogan.data.sources import DATA_SOURCES

    if name and name not in DATA_SOURCES:
        if not name.endswith(CONFIGS) and "/" not in name and (hint := did_you_mean(name, DATA_SOURCES)):
            raise UserError(f"--data {shown(name)}: no such data source or config{hint}")
        check_config(name)


def check_factors(arguments: Namespace) -> None:
    """Raise ``UserError`` if --data is no data source, no path, and no config that can be read."""
    name = arguments.data
    if name and name.endswith(CONFIGS):
        check_config(name)
    elif name and ":" not in name and not os.path.lexists(user_path(name)):
        from orthogan.data.sources import DATA_SOURCES

        try:
            DATA_SOURCES.get(name, "--data")
        except UserError as error:
            raise UserError(f"{error}, or a path") from None


def open_factors(name: str, net: Generator, trust: bool) -> ImageSource:
    """Open the images with factors named by --data, at the size of the generator's images."""
    from orthogan.config.files import load_config
    from orthogan.data import open_configured, open_source
    from orthogan.models.generate import image_size

    if name.endswith(CONFIGS):
        return open_configured(load_config(name, trust=trust, only="data").data)
    channels, side = image_size(net)
    return open_source(name, resolution=side, channels=channels)


def read_factors(arguments: Namespace, net: Generator, device: torch.device) -> OracleReader | None:
    """Return a reader of the factors of --data, trained now or before; None without --data."""
    if arguments.data is None:
        return None
    from orthogan.disentanglement import factor_reader

    return factor_reader(open_factors(arguments.data, net, arguments.trust), device=device)


def open_subject(path: str, arguments: Namespace) -> tuple[OpenedModel, Generator, torch.device]:
    """Open the generator of ``path`` on the device given in ``arguments``; a shipped model keeps its name."""
    from orthogan.config.files import own_names
    from orthogan.device import chosen_device
    from orthogan.models.open import open_model
    from orthogan.models.shipped import find_shipped

    device = chosen_device(arguments.device)
    trust = arguments.trust or own_names(vars(arguments).get("data"))
    subject = open_model(path, device=device, ema=not arguments.no_ema, trust=trust)
    if not os.path.lexists(path) and find_shipped(path) is not None:
        subject = replace(subject, name=path)
    return subject, subject.generator, device


def read_directions(arguments: Namespace, net: Generator, latents: Latents | None = None) -> Directions:
    """Return the directions of --directions or else of --method, restricted to the styles of --layers.

    Those of a method are found in z, or in the w of ``latents`` that are not in z.
    """
    from orthogan.latent import Directions, parse_layers
    from orthogan.latent.discovery import find_directions
    from orthogan.models.generate import in_space

    if arguments.directions:
        directions = Directions.load(arguments.directions)
    elif latents is not None and latents.space != "z":
        space = latents.space.removesuffix("+")
        seen = in_space(net, space, y=latents.label(0))
        directions = replace(find_directions(seen, arguments.method), space=space, unit=f"units of {space}")
    else:
        directions = find_directions(net, arguments.method)
    return replace(directions, layers=parse_layers(arguments.layers, net)) if arguments.layers else directions


def read_latents(path: str | None, net: Generator) -> Latents | None:
    """Return the latents in a file, checked against the generator; None without a file."""
    from orthogan.latent import Latents

    if path is None:
        return None
    latents = Latents.load(path)
    latents.check(net, where=printable(path))
    return latents


def read_distance(features: str, device: torch.device) -> Distance | None:
    """Return the distance of --features; None for none."""
    if features == "none":
        return None
    from orthogan.evaluation.paths.distances import load_distance, nearest_to_perception

    return load_distance(nearest_to_perception() if features == "auto" else features, device=device)


def add_captions(directions: Directions, arguments: Namespace, net: Generator, device: torch.device) -> Directions:
    """Add scores and captions about the factors of --data to ``directions``, if it is given."""
    reader = read_factors(arguments, net, device)
    if reader is None:
        return directions
    from orthogan.latent import describe_factors

    return describe_factors(net, directions, reader)


def read_class(arguments: Namespace, subject: OpenedModel, *, new: bool = False) -> int | None:
    """Return the single class of --classes, or None; ``new``: it may be a label vector that no training image has."""
    if arguments.classes is None:
        return None
    from orthogan.latent import choose_classes

    chosen = choose_classes(subject.generator, arguments.classes, new=new)
    if len(chosen) > 1:
        raise UserError(f"--classes {arguments.classes}: this command shows one class at a time; choose one")
    return chosen[0]


def find_run(subject: str | Path) -> Path | None:
    """Return the run folder that ``subject`` is or is inside of."""
    from orthogan.io import checkpoint

    path = Path(subject)
    for folder in (path, *path.resolve().parents):
        if (folder / "config.yaml").is_file() and (folder / checkpoint.FOLDER).is_dir():
            return folder
    return None
