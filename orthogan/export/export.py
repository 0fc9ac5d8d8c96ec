"""Exporting a generator: its style by name, and the model from any subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from orthogan.arguments import checked
from orthogan.errors import UserError
from orthogan.export.graph import plain
from orthogan.export.style import STYLES, Exportable, Exported, Style
from orthogan.models.hub import parse_hub_name
from orthogan.models.open import OpenedModel, open_model
from orthogan.models.protocol import as_generator
from orthogan.named_code import Trust
from orthogan.registry import did_you_mean


@checked
def export(
    subject: str | Path | nn.Module | OpenedModel,
    to: str,
    out: str | Path | None = None,
    *,
    trust: Trust = False,
    **options: Any,
) -> Exported:
    """Write a generator in another form, with its constraints baked into the weights.

    Args:
        subject: a run, a checkpoint, a ``.safetensors`` file, a shipped model, ``module:Class``, or a generator.
        to: "onnx", "torch-export", "page", or ``module:Style``.
        out: the file; by default the name of the model with the suffix of the style, in the current folder.
        trust: the ``module:Class`` names that a file may use.
        options: those of the style, such as ``space="w"``.

    Raises:
        UserError: unknown style or option, a network that cannot be recorded, or a file that differs from the model.

    Example:
        >>> from orthogan.export import export
        >>> export("sprites-sngan", "page").files
        [PosixPath('sprites-sngan.html')]
    """
    style = make_style(to, options)
    model = exportable(subject, trust=trust)
    path = Path(out) if out is not None else Path(f"{model.name}{style.suffix}")
    if path.suffix != style.suffix:
        raise UserError(f"{path}: a file of style {to} ends with {style.suffix}; choose another name")
    return style.write(model, path)


def make_style(to: str, options: dict[str, Any]) -> Style:
    """Return the style ``to`` with its options. Raises ``UserError`` for an unknown style, option or value."""
    kind = STYLES.get(to, "to")
    known = kind.model_fields
    if unknown := [name for name in options if name not in known]:
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        raise UserError(f"{unknown[0]}: not an option of {to}{did_you_mean(unknown[0], known)}; {has}")
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def exportable(subject: str | Path | nn.Module | OpenedModel, *, trust: Trust = False) -> Exportable:
    """Open ``subject`` for an export."""
    if isinstance(subject, nn.Module):
        net = as_generator(subject)
        return Exportable(type(net).__name__.lower(), plain(net), list(getattr(net, "class_names", [])))
    opened = subject if isinstance(subject, OpenedModel) else open_model(subject, trust=trust)
    return Exportable(_name(opened), plain(opened.generator), opened.class_names)


def _name(opened: OpenedModel) -> str:
    """Return the name of a model: of its run, folder, file or class."""
    if opened.path is None:
        return opened.name.rpartition(":")[2].lower()
    if (hub := parse_hub_name(opened.name)) and opened.name != str(opened.path):
        return hub.repo.partition("/")[2]
    path = opened.path.resolve()
    if not opened.from_folder:
        return path.stem
    folder = path.parent
    return folder.parent.parent.name if folder.parent.name == "checkpoints" else folder.name
