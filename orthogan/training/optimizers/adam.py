"""Adam (Kingma & Ba 2015, arXiv:1412.6980), fused on CPUs and CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn
from torch.optim import Adam

from orthogan.config.base import Decay, NotNegative, Positive
from orthogan.training.optimizers.optimizer import (
    CLASSIFIER_OPTIMIZERS,
    GAN_OPTIMIZERS,
    ClassifierOptimizerConfig,
    GanOptimizerConfig,
    share_of_main,
)

Beta1 = Annotated[float, Field(ge=0.0, le=0.999999)]
FIRST, SECOND = "decay of the first moment estimate", "decay of the second moment estimate"
EPS = "value added to the denominator"


@GAN_OPTIMIZERS.register("adam")
class AdamConfig(GanOptimizerConfig):
    """Adam for G or D."""

    kind: str = "adam"
    beta1: Beta1 = Field(default=0.0, description=FIRST)
    beta2: Decay = Field(default=0.9, description=SECOND)
    eps: Positive = Field(default=1e-8, description=EPS)

    def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> Adam:
        """Create the optimizer; with a lazy penalty, lr and betas are corrected for its extra updates."""
        share = share_of_main(interval)
        betas = (self.beta1**share if self.beta1 else 0.0, self.beta2**share)
        return Adam(parameters, lr=self.lr * share, betas=betas, eps=self.eps, fused=_fused(parameters))


@CLASSIFIER_OPTIMIZERS.register("adam")
class ClassifierAdamConfig(ClassifierOptimizerConfig):
    """Adam for a classifier."""

    kind: str = "adam"
    weight_decay: NotNegative = Field(
        default=5e-4, description="L2 penalty: this value times a parameter is added to its gradient"
    )
    beta1: Beta1 = Field(default=0.9, description=FIRST)
    beta2: Decay = Field(default=0.999, description=SECOND)
    eps: Positive = Field(default=1e-8, description=EPS)

    def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> Adam:
        """Create the optimizer; weight decay applies to all parameters."""
        return Adam(
            parameters,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=_fused(parameters),
        )


def _fused(parameters: Sequence[nn.Parameter]) -> bool:
    return parameters[0].device.type in ("cuda", "cpu")
