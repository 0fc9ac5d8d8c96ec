"""Transforms of gradients between backward and step, as hooks on any torch optimizer, created in one line."""

from orthogan.gradients.cayley_retraction import CayleyRetraction
from orthogan.gradients.nearest_orthogonal import NearestOrthogonalGradient
from orthogan.gradients.optimal_learning_rate import OptimalLearningRate
from orthogan.gradients.rule import GRADIENT_RULES, GradientRule

__all__ = ["GRADIENT_RULES", "CayleyRetraction", "GradientRule", "NearestOrthogonalGradient", "OptimalLearningRate"]
