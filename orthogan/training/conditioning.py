"""Penalties, gradient rules and constraint updates of a network during training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan import weights
from orthogan.errors import UserError
from orthogan.gradients.cayley_retraction import CayleyRetraction
from orthogan.gradients.rule import GRADIENT_RULE, GradientRule
from orthogan.layers import CovariancePooling, DecorrelatedBatchNorm2d, HouseholderProjector
from orthogan.models.config import NetConfig
from orthogan.penalties import Penalty, PenaltyConfig, Schedule
from orthogan.penalties.network import PENALTY
from orthogan.training.task import Losses
from orthogan.weights.network import CONSTRAINT, list_constrained


class WeightRegularizers:
    """The penalties and rules of one network with its optimizer, and the updates of its constraint.

    Args:
        key: config key of the network, for messages.
        seed: random seed of the constraint, for example for the dimensions of stochastic OPT.

    Raises:
        UserError: layers that match nothing, unknown options, or a combination without effect.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, section: NetConfig, *, key: str, seed: int) -> None:
        self.net = net
        self.penalties: list[tuple[Penalty, float, Schedule]] = []
        for i, one in enumerate(section.penalties):
            try:
                self.penalties.append(_penalty(PENALTY.resolved(one), net))
            except (ValueError, TypeError) as error:
                raise UserError(f"{key}.penalties.{i}: {error}") from error
        self.rules: list[GradientRule] = []
        for i, rule in enumerate(section.gradient_transforms):
            try:
                self.rules.append(GRADIENT_RULE.resolved(rule).put_on(optimizer, net))
            except ValueError as error:
                raise UserError(f"{key}.gradient_transforms.{i}: {error}") from error
        self.upkeep = CONSTRAINT.resolved(section.norm).attach(net, optimizer, seed=seed)
        self.rules += self.upkeep.rules
        if self.upkeep.retraction is not None:
            self.rules.append(CayleyRetraction(optimizer, net, **self.upkeep.retraction))

    def weight_penalty(self, share: float) -> Losses | None:
        """Return the penalties at ``share`` of the run, to add to the loss, or None."""
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for penalty, weight, schedule in self.penalties:
            factor = weight * schedule(share)
            if factor == 0:
                continue
            value = penalty()
            terms[penalty.name] = value.detach()
            total = factor * value if total is None else total + factor * value
        for name, (weight, value) in self.upkeep.penalties().items():
            terms[name] = value.detach()
            total = weight * value if total is None else total + weight * value
        # without a gradient all these layers are frozen
        return None if total is None or not total.requires_grad else (total, terms)

    def finish_step(self, done: int) -> None:
        """Update the constraint after ``done`` steps, for example start the next episode of stochastic OPT."""
        self.upkeep.finish_step(done)

    def scalars(self) -> dict[str, float]:
        """Return statistics of the rules, such as the optimal learning rate, by layer."""
        return {name: value for rule in self.rules for name, value in rule.scalars().items()}

    @torch.no_grad()
    def spectrum(self) -> dict[str, Mapping[str, float]]:
        """Return the conditioning of constrained, penalized and transformed layers, and of decomposed covariances.

        The largest eigenvalue of a covariance depends on the scale of earlier layers, so if there is one, all layers
        are listed.
        """
        found: dict[str, dict[str, float]] = dict(weights.report(self.net))
        covariances = {
            name: module
            for name, module in self.net.named_modules()
            if isinstance(module, DecorrelatedBatchNorm2d | CovariancePooling)
        }
        named = {name for rule in self.rules for name, _ in rule.parameters}
        named |= {name for penalty, _, _ in self.penalties for name in penalty.names}
        if named or covariances:
            with weights.hold_power_iteration(self.net):
                for selected in weights.select(self.net, "*"):  # latent subspaces too
                    if covariances or selected.name in named:
                        condition = condition_numbers(selected.matrix.float())
                        found[selected.name] = found.get(selected.name, {}) | condition
        for name, module in covariances.items():
            if module.last_covariance is not None:
                found[name] = {what: max(values) for what, values in module.conditioning().items()}
        return dict(found)

    def state(self) -> dict[str, Tensor]:
        """Return the state of the rules."""
        return {f"{i}/{name}": t for i, rule in enumerate(self.rules) for name, t in rule.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        for i, rule in enumerate(self.rules):
            prefix = f"{i}/"
            mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if mine:
                rule.load_state_dict(mine)

    def describe(self) -> dict[str, str]:
        """Describe the layers of each constraint, penalty and rule for the user."""
        facts: dict[str, str] = {}
        for name, _, _, constraint in list_constrained(self.net):
            key = f"{type(constraint).__name__} on"
            facts[key] = f"{facts[key]}, {name}" if key in facts else name
        if projectors := [n for n, part in self.net.named_modules() if isinstance(part, HouseholderProjector)]:
            facts["HouseholderProjector on"] = ", ".join(projectors)
        facts |= {f"{p.name} on": ", ".join(p.names) for p, _, _ in self.penalties}
        return facts | {f"{type(r).__name__} on": ", ".join(n for n, _ in r.parameters) for r in self.rules}


def _penalty(config: PenaltyConfig, net: nn.Module) -> tuple[Penalty, float, Schedule]:
    options = config.model_dump(exclude={*PenaltyConfig.model_fields})
    penalty = Penalty(net, config.kind, 1.0, config.layers, **options)
    schedule = Schedule([(position, value) for position, value in config.schedule])
    with torch.no_grad():
        penalty()
    penalty.refuse_constant()
    return penalty, config.weight, schedule


def condition_numbers(matrix: Tensor) -> dict[str, float]:
    """Frobenius norm, largest singular value and condition number (inf where singular) of ``matrix``."""
    values = torch.linalg.svdvals(matrix)
    smallest = float(values[-1])
    return {
        "norm": float(values.norm()),
        "sigma": float(values[0]),
        "condition": float(values[0]) / smallest if smallest > 0 else float("inf"),
    }
