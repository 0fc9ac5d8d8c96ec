"""Reports on the weights of a network: a table of its layers, or JSON, and a plot."""

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
    """Report on ``subject`` as text to print: a table, or one JSON object; also writes a plot if ``plot`` is given.

    Args:
        layers: layers to show, as in ``orthogan.weights.select``; all by default.
        size: height and width of the feature map for the linear map of a convolution.
        ema: use the averaged generator of a run, if there is one.
        trust: which external classes a file may name, see ``orthogan.load``.

    Raises:
        UserError: there is nothing to measure, or no such layer; the message names the file or word and the fix.
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
        lines.append("treated as convolutions of stride 1 without groups, because the file does not say otherwise")
    if others:
        lines.append(
            f"not measured, because they are not in a linear, embedding or convolution layer: {', '.join(others)}"
        )
    if written is not None:
        lines.append(f"plot: {written}")
    return "\n".join(lines)
