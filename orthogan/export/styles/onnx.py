"""ONNX files, for onnxruntime and other engines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from orthogan.errors import UserError, install
from orthogan.export.graph import Call, Mapping, examples, record, view
from orthogan.export.style import LARGEST_ERROR, STYLES, Exportable, Exported, Style
from orthogan.io.read import printable
from orthogan.io.write import write_bytes
from orthogan.models.families.style_based import StyleBased
from orthogan.models.protocol import Generator

OPSET = 18
BATCHES = (1, 3)  # sizes that are checked


@STYLES.register("onnx")
class Onnx(Style):
    """An ONNX model with inputs ``z`` (n, latent_dim) and, if conditional, ``y`` (n,) int64; output ``images``.

    The batch size n is free. Images are float32 in [-1, 1]. With ``space="w"`` the input is ``w`` (n, w_dim), as
    ``orthogan.latent.in_space(generator, "w")`` takes it: the difference from the mean of w. The same holds for "w+"
    and "s". A second file, ``NAME.mapping.onnx``, then maps z and y to that input. If onnxruntime is installed, its
    images must agree with those of torch to 1e-4.
    """

    suffix: ClassVar[str] = ".onnx"
    space: str = Field(default="z", description="latent space of the input: z; w, w+ or s of a style-based generator")
    opset: Annotated[int, Field(ge=18, le=25)] = Field(default=OPSET, description="version of the ONNX operators")

    def write(self, model: Exportable, out: Path) -> Exported:
        """Write one ONNX file, or two in the space w."""
        net = view(model.generator, self.space)
        jobs: list[tuple[Path, nn.Module, Generator, str, str]] = [(out, Call(net), net, self.space, "images")]
        if self.space != "z" and isinstance(model.generator, StyleBased):
            other = out.with_name(f"{out.stem}.mapping.onnx")
            jobs.append((other, Mapping(model.generator, self.space), model.generator, "z", self.space))
        lines = []
        for path, module, generator, name, output in jobs:
            inputs = [name, *(["y"] if generator.num_classes else [])]
            content = to_onnx(module, generator, inputs, output, {**model.about(), "space": name}, opset=self.opset)
            error = check(content, module, generator)
            write_bytes(path, content)
            checked = (
                f"not checked, because onnxruntime is not installed ({install('export')})"
                if error is None
                else f"onnxruntime agrees with torch to {error:.1g}"
            )
            size = f"{len(content) / 1e6:.1f} MB, opset {self.opset}"
            lines.append(f"{printable(path)}: {', '.join(inputs)} -> {output}, {size}; {checked}")
        return Exported([job[0] for job in jobs], lines)


def to_onnx(
    module: nn.Module,
    generator: Generator,
    inputs: Sequence[str],
    output: str,
    about: dict[str, str],
    *,
    opset: int = OPSET,
) -> bytes:
    """Return ``module``, a function of the latents of ``generator``, as an ONNX model.

    Args:
        inputs, output: their names in the model.
        about: written to the metadata of the model.

    Raises:
        UserError: onnx or onnxscript is missing, or the network has an operation without a translation.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UserError(f"to onnx: {error.name} is not installed: {install('export')}") from None
    program = record(module, examples(generator, 2))
    level = logging.getLogger("onnxscript").level
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("onnxscript").setLevel(logging.ERROR)
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=[output],
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # an operation of the user's own network
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{type(generator).__name__}: torch.onnx cannot translate it: {reason}") from error
    finally:
        logging.getLogger("onnxscript").setLevel(level)
    assert made is not None
    proto: Any = made.model_proto
    proto.producer_name, proto.producer_version = "orthogan", about["software"].rpartition(" ")[2]
    onnx.helper.set_model_props(proto, about)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def check(content: bytes, module: nn.Module, generator: Generator) -> float | None:
    """Return the largest difference between onnxruntime and torch; None if onnxruntime is not installed.

    Raises:
        UserError: it is above 1e-4.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would send usage data and keep an ID in the user's cache
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        found = session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
        return torch.from_numpy(found[0])

    return compare(run, module, generator, "onnxruntime")


@torch.no_grad()
def compare(run: Any, module: nn.Module, generator: Generator, who: str) -> float:
    """Return the largest difference between ``run`` and ``module``. Raises ``UserError`` if it is above 1e-4."""
    differences: list[float] = []
    for size in BATCHES:
        inputs = examples(generator, size, seed=size)
        expected, found = module(*inputs), run(*inputs)
        if found.shape != expected.shape:
            raise UserError(
                f"{who} returns {tuple(found.shape)} instead of {tuple(expected.shape)}; nothing is written"
            )
        differences.append(float((found - expected).abs().max() / expected.abs().max().clamp(min=1)))
    worst = float(torch.tensor(differences).max())  # NaN if one is, unlike Python's max
    if not worst <= LARGEST_ERROR:
        raise UserError(f"{who} differs from torch by {worst:.2g}, more than {LARGEST_ERROR:g}; nothing is written")
    return worst
