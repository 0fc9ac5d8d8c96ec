"""Programs of ``torch.export``, which torch runs without the code of the network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field

from orthogan.export.graph import Call, examples, record, view
from orthogan.export.style import STYLES, Exportable, Exported, Style
from orthogan.export.styles.onnx import compare
from orthogan.io.read import printable
from orthogan.io.write import write_bytes


@STYLES.register("torch-export")
class TorchExport(Style):
    """A ``.pt2`` file: ``torch.export.load(file).module()(z)``, or ``(z, y)`` if conditional, returns the images.

    The batch size is free. With ``space="w"`` the input is the difference from the mean of w. The file is loaded
    again and compared with the network to 1e-4.
    """

    suffix: ClassVar[str] = ".pt2"
    space: str = Field(default="z", description="latent space of the input: z; w, w+ or s of a style-based generator")

    def write(self, model: Exportable, out: Path) -> Exported:
        """Write one ``.pt2`` file."""
        net = view(model.generator, self.space)
        module = Call(net)
        buffer = io.BytesIO()
        about = {**model.about(), "space": self.space}
        torch.export.save(record(module, examples(net, 2)), buffer, extra_files={k: v for k, v in about.items() if v})
        content = buffer.getvalue()
        error = compare(torch.export.load(io.BytesIO(content)).module(), module, net, "the loaded program")
        write_bytes(out, content)
        inputs = ", ".join([self.space, *(["y"] if net.num_classes else [])])
        line = f"{printable(out)}: {inputs} -> images, {len(content) / 1e6:.1f} MB; it agrees with torch to {error:.1g}"
        return Exported([out], [line])
