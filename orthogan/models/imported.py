"""Converting other people's checkpoints to model files of orthogan, with a card that says where they come from."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import nn

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.weights import write_sealed
from orthogan.io.write import check_holds_only, write_text
from orthogan.models.card import Card, Facts, card_file
from orthogan.models.open import OpenedModel, open_model
from orthogan.models.saved import DISCRIMINATOR_FORMAT, FORMAT, check_partner, metadata
from orthogan.models.shipped import CARD, DISCRIMINATOR, GENERATOR

FILES = (GENERATOR, DISCRIMINATOR, CARD)


def import_model(
    file: str | Path, out: str | Path | None = None, *, ema: bool = True, license: str = ""
) -> tuple[Path, OpenedModel]:
    """Convert the file of another project to a model of ours; nothing in it is executed.

    Args:
        file: a file of a layout that orthogan recognizes, see docs/guides/foreign-models.md.
        out: a ``.safetensors`` file for the generator and its card beside it; or a folder, which also gets the
            discriminator if the file has one. By default a folder with the name of the file, without its ending.
        ema: take the averaged weights of the generator if the file has both.
        license: license of the weights, for the card and the metadata; by default what is known about the project.

    Returns:
        What was written (a folder, or a file), and the opened foreign model.

    Raises:
        UserError: no layout recognizes the file, its tensors do not fit, or ``out`` holds other files or the
            discriminator of another model.
    """
    opened = open_model(file, ema=ema).need("generator")
    if opened.foreign is None or opened.path is None:
        raise UserError(f"{printable(file)}: orthogan can already open this; there is nothing to import")
    target = Path(out) if out is not None else Path(opened.path.name.split(".")[0] or "imported")
    single = target.suffix == ".safetensors"
    if not single:
        _check_folder(target)
    about, origin = opened.about, dict(opened.foreign.origin)
    if license:
        origin["license"] = license
    extra = {**about.extra, "origin": json.dumps(origin)}
    nets: dict[Path, tuple[nn.Module, str]] = {target if single else target / GENERATOR: (opened.generator, FORMAT)}
    if opened.has_discriminator and not single:
        nets[target / DISCRIMINATOR] = (opened.discriminator, DISCRIMINATOR_FORMAT)
    else:
        check_partner(target.parent if single else target, extra)
    for path, (net, form) in nets.items():
        write_sealed(path, net.state_dict(), metadata(about.config, about.num_classes, extra, form=form))
    write_text(card_file(target), _card(target.stem, opened, origin).markdown())
    return target, opened


def _check_folder(out: Path) -> None:
    if os.path.lexists(out):
        if not out.is_dir():
            raise UserError(f"{printable(out)}: is a file; name a new folder, or a file that ends in .safetensors")
        check_holds_only(out, FILES)


def _card(name: str, opened: OpenedModel, origin: dict[str, str]) -> Card:
    assert opened.foreign is not None
    about, model = opened.about, opened.foreign.model
    nets: dict[str, nn.Module] = {"generator": opened.generator}
    if opened.has_discriminator:
        nets["discriminator"] = opened.discriminator
    kind = "class-conditional" if about.num_classes else "unconditional"
    facts = Facts(
        summary=f"{kind.capitalize()} {about.config.model.generator.kind} GAN at {model.resolution} px, imported from "
        f"{origin['file']}",
        resolution=model.resolution,
        channels=model.image_channels,
        classes=opened.class_names,
        parameters={net: sum(p.numel() for p in module.parameters()) for net, module in nets.items()},
        latent_dim=model.latent_dim,
        step=model.step or 0,
        images=model.images or 0,
        origin=origin,
    )
    rows = {
        "File": f"`{origin['file']}`",
        "SHA-256 of the file": f"`{origin['sha256']}`",
        "Layout": f"{origin['layout']}: {origin['project']}" + (f" ({origin['source']})" if origin["source"] else ""),
        "License": origin["license"],
        "Images": f"{model.resolution} x {model.resolution}, {'gray' if model.image_channels == 1 else 'RGB'}",
        "Classes": str(about.num_classes) if about.num_classes else "none",
        "Parameters": ", ".join(f"{net} {count:,}" for net, count in facts.parameters.items()),
        "Latent": f"{model.latent_dim} numbers",
    }
    lines = [f"# {name}", "", f"{facts.summary}.", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value.replace('|', ' ')} |" for key, value in rows.items()]
    lines += ["", *model.notes] if model.notes else []
    lines += [
        "",
        "The weights are those of the file, under other names; nothing was trained or changed. Respect the license of "
        "their author: converting a file gives no rights to it.",
        "",
    ]
    tags = ["gan", "image-generation", "orthogan", about.config.model.generator.kind]
    return Card("\n".join(lines), {"library_name": "orthogan", "tags": tags}, facts)
