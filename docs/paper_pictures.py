"""Draws the pictures of docs/papers/: what each method does to one small matrix. About a minute on one core.

python -m docs.paper_pictures
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from docs.toolbox_pictures import BATCH, LAYER, STEPS, data, net
from orthogan import linalg, penalties, weights
from orthogan.drawing.plots import GREY, PALETTE, STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

IMAGES = Path(__file__).parent / "images"


@contextmanager
def panels(name: str, titles: list[str]) -> Iterator[list[Axes]]:
    """Panels side by side, written to docs/images/paper-NAME.png."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((3.6 * len(titles), 2.7), layout="constrained")
        axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title)
        yield axes
        figure.savefig(IMAGES / f"paper-{name}.png")


def stable_rank() -> None:
    """Spectra of a random layer under the projection, and how far each moves it."""
    weight = torch.randn(128, 1152, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = weight / torch.linalg.matrix_norm(weight, 2)
    size = min(weight.shape)
    titles = ["Singular values of a random 128 x 1152 layer", "Relative distance to the layer"]
    with panels("stable-rank", titles) as (left, right):
        left.plot(torch.linalg.svdvals(weight), "--", color=GREY, label="spectral normalization")
        for color, (c, k) in zip(PALETTE, [(0.5, 1), (0.3, 1), (0.3, 8), (0.3, 0)], strict=False):
            values = torch.linalg.svdvals(linalg.stable_rank_projection(weight, c * size, k))
            left.plot(values, color=color, label=f"SRN c={c}, k={k}")
        left.set(xlabel="index", ylabel="singular value", ylim=(0, None))
        left.legend(fontsize=7.5)
        shares = np.linspace(0.05, 0.7, 40)
        for color, k in zip(PALETTE, (0, 1, 8), strict=False):
            far = [float((weight - linalg.stable_rank_projection(weight, c * size, k)).norm()) for c in shares]
            right.plot(shares, np.array(far) / float(weight.norm()), color=color, label=f"k={k}")
        right.axvline(float(linalg.stable_rank(weight)) / size, linestyle="--", color=GREY, label="stable rank before")
        right.set(xlabel="c", ylabel="‖W - Ŵ‖ / ‖W‖", ylim=(0, None))
        right.legend(fontsize=7.5)


def orthogonal_gradients() -> None:
    """The gradient's spectrum with and without NOG, and the optimal learning rate against the cosine."""
    images, labels = data()
    model = net()
    functional.cross_entropy(model(images[:BATCH]), labels[:BATCH]).backward()
    gradient = model.get_submodule(LAYER).weight.grad.flatten(1).double()  # pyright: ignore
    with panels("orthogonal-gradients", ["Singular values of one gradient, 48 x 432", "Optimal learning rate"]) as axes:
        left, right = axes
        before, after = gradient, linalg.nearest_orthogonal(gradient)
        left.semilogy(torch.linalg.svdvals(before), color=GREY, label="gradient")
        left.semilogy(torch.linalg.svdvals(after), color=PALETTE[0], label="NOG")
        left.semilogy(
            torch.linalg.svdvals(after * before.norm() / after.norm()),
            "--",
            color=PALETTE[1],
            label="NOG, scale=frobenius",
        )
        left.set(xlabel="index", ylabel="singular value", yticks=[0.01, 0.1, 1], yticklabels=["0.01", "0.1", "1"])
        left.legend(fontsize=7.5)
        cosine = np.linspace(0, 1, 200)
        right.plot(cosine, cosine / (1 + 2 * cosine**2), color=PALETTE[0])
        right.set(xlabel="cosine between weight and gradient", ylabel="η* ‖l‖ / ‖w‖", ylim=(0, None))


def rotation() -> None:
    """Energy and spectrum of a layer while it trains: plain, rotated, and rotated without orthogonality."""
    images, labels = data()
    ways: dict[str, Callable[[nn.Module], object]] = {
        "plain": lambda layer: None,
        "rotation (qr)": lambda layer: weights.rotation(layer, method="qr"),
        "rotation (relaxed)": lambda layer: weights.rotation(layer, method="relaxed"),
    }
    titles = ["Hyperspherical energy of the neurons", f"Singular values after {STEPS} steps"]
    with panels("rotation", titles) as (left, right):
        for index, (name, prepare) in enumerate(ways.items()):
            model = net()
            layer = model.get_submodule(LAYER)
            start = torch.linalg.svdvals(layer.weight.detach().flatten(1))  # pyright: ignore
            prepare(layer)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            order, energies = torch.Generator().manual_seed(1), []
            for _ in range(STEPS):
                energies.append(float(linalg.hyperspherical_energy(layer.weight.detach().flatten(1))))  # pyright: ignore
                rows = torch.randint(len(images), (BATCH,), generator=order)
                loss = functional.cross_entropy(model(images[rows]), labels[rows])
                if "relaxed" in name:
                    loss = loss + weights.relaxation(model)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            color = GREY if name == "plain" else PALETTE[index - 1]
            left.plot(energies, color=color, label=name)
            right.plot(torch.linalg.svdvals(layer.weight.detach().flatten(1)), color=color, label=name)  # pyright: ignore
            if name == "plain":
                right.plot(start, ":", color="black", label="plain, at the start", zorder=3)
        left.set(xlabel="step", ylabel="mean energy, s = 2")
        right.set(xlabel="index", ylabel="singular value", ylim=(0, None))
        left.legend(fontsize=7.5)
        right.legend(fontsize=7.5)


def disentangled_norm() -> None:
    """64 filters of 27 dimensions after 3,000 steps of Adam under two penalties."""
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "Frobenius (SO)": lambda weight: penalties.soft_orthogonality(weight, side="rows"),
        "disentangled norm": penalties.disentangled_norm,
    }
    with panels("disentangled-norm", ["Norms of 64 filters, 27 dimensions", "Cosines between filters"]) as (
        left,
        right,
    ):
        for color, (name, loss) in zip(PALETTE, losses.items(), strict=False):
            weight = nn.Parameter(torch.randn(64, 27, generator=torch.Generator().manual_seed(0)))
            optimizer = torch.optim.Adam([weight], lr=1e-2)
            for _ in range(3000):
                optimizer.zero_grad()
                loss(weight).backward()
                optimizer.step()
            norms = weight.detach().norm(dim=1)
            unit = weight.detach() / norms[:, None]
            cosines = (unit @ unit.T)[*torch.tril_indices(64, 64, -1)]
            sums = float(norms.square().mean()), float(cosines.square().sum())
            print(f"{name}: mean norm² {sums[0]:.4f}, sum of cos² {sums[1]:.4f}")
            left.hist(norms.numpy(), bins=np.linspace(0.3, 1.05, 76).tolist(), color=color, label=name)
            right.hist(
                cosines.numpy(),
                bins=np.linspace(-1, 1, 41).tolist(),
                color=color,
                histtype="step",
                linewidth=1.6,
                label=name,
            )
        left.set(xlabel="norm", ylabel="filters")
        right.set(xlabel="cosine", ylabel="pairs")
        left.legend(fontsize=7.5, loc="upper center")


if __name__ == "__main__":
    for draw in (stable_rank, orthogonal_gradients, rotation, disentangled_norm):
        draw()
