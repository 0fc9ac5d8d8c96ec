"""SGD with momentum, the optimizer of the published classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator
from torch import nn
from torch.optim import SGD

from orthogan.config.base import Decay, NotNegative
from orthogan.training.optimizers.optimizer import CLASSIFIER_OPTIMIZERS, ClassifierOptimizerConfig


@CLASSIFIER_OPTIMIZERS.register("sgd")
class SGDConfig(ClassifierOptimizerConfig):
    """SGD for a classifier."""

    kind: str = "sgd"
    momentum: Decay = Field(default=0.9, description="momentum factor")
    nesterov: bool = Field(default=False, description="use Nesterov momentum")
    weight_decay: NotNegative = Field(
        default=5e-4,
        description="L2 penalty, also on biases and batch norms: this value times a parameter is added to its gradient",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum above 0; set momentum, such as 0.9")
        return self

    def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> SGD:
        """Create the optimizer; weight decay applies to all parameters, as in the published recipes.

        It is not fused: the fused one cannot reset the velocity of some parameters, as stochastic OPT does.
        """
        return SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
