"""Optimizers, one file per kind. Any ``torch.optim.Optimizer`` works without a file: ``kind: torch.optim:RMSprop``."""

from orthogan.training.optimizers.optimizer import (
    CLASSIFIER_OPTIMIZER,
    CLASSIFIER_OPTIMIZERS,
    GAN_OPTIMIZER,
    GAN_OPTIMIZERS,
    ClassifierOptimizerConfig,
    GanOptimizerConfig,
    NetOptimizerConfig,
)

__all__ = [
    "CLASSIFIER_OPTIMIZER",
    "CLASSIFIER_OPTIMIZERS",
    "GAN_OPTIMIZER",
    "GAN_OPTIMIZERS",
    "ClassifierOptimizerConfig",
    "GanOptimizerConfig",
    "NetOptimizerConfig",
]
