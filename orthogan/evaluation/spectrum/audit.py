"""The audit of a net as a text: a table of its layers, or JSON, and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from orthogan.drawing.plots import check_suffix, plot_spectra
from orthogan.errors import UserError
from orthogan.evaluation.spectrum import layer_spectrum as measuring
from orthogan.models.open import open_model
from orthogan.named_code import Trust


def spectrum(
    subject: str,
    *,
    layers: str | Sequence[str] = (),
    size: int = 8,
    plot: str | Path | None = None,
    as_json: bool = False,
    ema: bool = True,
    trust: Trust = False,
) -> str:
    """The audit of ``subject`` as a text to print: a table, or one JSON object; and a picture, if ``plot`` names one.

    Args:
        layers: which ones, in the words of ``orthogan.weights.select``; all by default.
        size: side of the map on which convolutions are linear maps.
        ema: a run's averaged generator where there is one.
        trust: which classes that are not orthogan's own a file may name, see ``orthogan.load``.

    Raises:
        UserError: nothing to measure, or no such layer; it names the file or the word and what would do.
    """
    if plot is not None:
        check_suffix(plot)
    model = open_model(subject, ema=ema, trust=trust)
    module, name = model.net, model.title
    try:
        rows = measuring.spectrum(module, layers, size)
    except ValueError as error:
        raise UserError(f"{subject}: {error}") from error
    product, others = measuring.log10_product_of_norms(rows), measuring.list_unmeasured(module)
    written = plot_spectra(rows, plot, title=name) if plot is not None else None
    if as_json:
        finite = {key: value if value > float("-inf") else None for key, value in product.items()}
        facts = {"subject": name, "size": size, "log10_product_of_norms": finite, "not_measured": others}
        return json.dumps(facts | {"layers": [row.as_dict() for row in rows]}, allow_nan=False)
    lines = [name, "", measuring.table(rows), ""]
    lines.append(
        f"log10 of the product of all norms (a heuristic): {product['operator']:.2f} as linear maps, "
        f"{product['reshaped']:.2f} as matrices"
    )
    if model.kind == "tensors":
        lines.append("taken for convolutions of stride 1 without groups: the file says nothing else")
    if others:
        lines.append(f"not measured, in no linear, embedding or convolution layer: {', '.join(others)}")
    if written is not None:
        lines.append(f"picture: {written}")
    return "\n".join(lines)
