"""InfoGAN (Chen et al. 2016): the codes of the latent must be readable from the image.

A network Q predicts the codes from the features of D, and G and Q maximize log Q(code | image), a lower bound on the
mutual information of codes and images (``loss.information``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from orthogan.arguments import checked
from orthogan.config.base import NotNegative, Section, Width


class InformationConfig(Section):
    """The config section ``loss.information``."""

    weight: NotNegative = Field(
        default=0.0,
        description="InfoGAN: coefficient of -log Q(codes | image) in the losses of G and of D; needs "
        "model.generator.codes; 0 = off; published: 0.05 (InfoGAN-CR, sprites), 2 (CelebA), 1 or 0.1 (InfoGAN)",
    )
    width: Width = Field(
        default=128, description="width of the hidden layer of Q, which reads the features of D [features]"
    )


@checked
def code_losses(outputs: Tensor, values: Tensor, *, continuous: int, categorical: Sequence[int] = ()) -> Tensor:
    """Return the mean of -log Q(code | image) of each code, shape (continuous + len(categorical),), in nats.

    Q is a normal distribution of standard deviation 1 around the output for a continuous code, and the softmax of the
    outputs for a categorical one.

    Args:
        outputs: (n, d) of Q: a mean per continuous code, then the logits of each categorical code.
        values: (n, d) or wider: the codes, with categories as one-hot vectors; further columns are ignored.
        continuous: number of continuous codes.
        categorical: number of categories of each categorical code.

    Source: Chen et al. 2016, arXiv:1606.03657, equation 5; standard deviation as in the code of Lin et al. 2020.

    Example:
        >>> import torch
        >>> from orthogan.penalties import code_losses
        >>> exact = torch.tensor([[0.5], [-0.5]])
        >>> code_losses(exact, exact, continuous=1)  # log(2 pi) / 2
        tensor([0.9189])
    """
    squares, crosses = _errors(outputs, values, continuous, categorical)
    return torch.cat([0.5 * squares + 0.5 * math.log(2 * math.pi), crosses])


@checked
def information_bound(
    outputs: Tensor, values: Tensor, *, continuous: int, categorical: Sequence[int] = (), uniform: bool = True
) -> Tensor:
    """Return a lower bound on the mutual information of each code and the image, in nats (see ``code_losses``).

    It is H(code) + E[log Q(code | image)] with the best standard deviation of Q for these images, so outputs that tell
    nothing give 0 or less. It is estimated from n images: the logarithm of the mean square of a continuous code is
    corrected for what it expects of n normal errors, since a few images would otherwise raise the bound.

    Args:
        outputs: of Q.
        values: the codes.
        continuous: number of continuous codes.
        categorical: number of categories of each categorical code.
        uniform: whether continuous codes are uniform on [-1, 1]; else standard normal.

    Source: Barber & Agakov 2003; Chen et al. 2016, equation 4.

    Example:
        >>> import torch
        >>> from orthogan.penalties import information_bound
        >>> code = torch.linspace(-1, 1, 101)[:, None]
        >>> near = code + 0.01 * torch.sign(torch.sin(1000 * code))  # known up to 0.01
        >>> round(float(information_bound(near, code, continuous=1)), 2)
        3.87
    """
    squares, crosses = _errors(outputs, values, continuous, categorical)
    entropy = math.log(2) if uniform else 0.5 * math.log(2 * math.pi * math.e)
    half = squares.new_full((), len(outputs) / 2)  # no copy to the device
    excess = 0.5 * (half.log() - torch.digamma(half))
    known = entropy - 0.5 * torch.log(2 * math.pi * math.e * squares.clamp_min(1e-12)) - excess
    return torch.cat([known, crosses.new_tensor([math.log(size) for size in categorical]) - crosses])


def _errors(outputs: Tensor, values: Tensor, continuous: int, categorical: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of each continuous code, and the cross-entropy of each categorical one."""
    squares = (outputs[:, :continuous].float() - values[:, :continuous].float()).square().mean(0)
    crosses, start = [], continuous
    for size in categorical:
        block = slice(start, start + size)
        crosses.append(functional.cross_entropy(outputs[:, block].float(), values[:, block].float()))
        start += size
    return squares, torch.stack(crosses) if crosses else squares.new_zeros(0)
