"""What a config asks of a net's weights while it trains: penalties, gradient rules, merges of rotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan import weights
from orthogan.config.schema import GradientRuleConfig, NetConfig
from orthogan.errors import UserError
from orthogan.gradients import CayleyRetraction, GradientRule, NearestOrthogonalGradient, OptimalLearningRate
from orthogan.layers import CovariancePooling, DecorrelatedBatchNorm2d, HouseholderProjector
from orthogan.penalties import Penalty, Schedule
from orthogan.training.task import Losses
from orthogan.weights import Orthogonal, Rotation
from orthogan.weights.network import list_constrained

# functions of the singular values alone, and of the rows' Gram matrix alone: what a rotation cannot change
SPECTRAL = ("soft_orthogonality", "double_soft_orthogonality", "srip")
INVARIANT = (*SPECTRAL, "off_diagonal", "disentangled_norm", "hyperspherical_energy")


class WeightRegularizers:
    """The penalties, rules and rotations of one net under one optimizer.

    Args:
        key: where the net's section stands in the config, for messages.
        seed: of the dimensions that stochastic OPT draws.

    Raises:
        UserError: layers that match nothing, options that do not exist, or a combination that has no effect.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, section: NetConfig, *, key: str, seed: int) -> None:
        self.net, self.optimizer, self.seed = net, optimizer, seed
        self.rotation = section.norm.rotation if section.norm.kind == "rotation" else None
        self.penalties: list[tuple[Penalty, float, Schedule]] = []
        for i, one in enumerate(section.penalties):
            try:
                penalty = Penalty(net, one.kind, 1.0, one.layers, **one.options)
                schedule = Schedule([(position, value) for position, value in one.schedule])
                with torch.no_grad():
                    penalty()
            except (ValueError, TypeError) as error:
                raise UserError(f"{key}.penalties.{i}: {error}") from error
            self._refuse_constant(penalty, f"{key}.penalties.{i}")
            self.penalties.append((penalty, one.weight, schedule))
        self.rules: list[GradientRule] = []
        for i, rule in enumerate(section.gradient_transforms):
            try:
                self.rules.append(_rule(rule, optimizer, net))
            except ValueError as error:
                raise UserError(f"{key}.gradient_transforms.{i}: {error}") from error
        if self.rotation is not None and self.rotation.method == "ogd":
            self.rules.append(CayleyRetraction(optimizer, net, momentum=self.rotation.momentum, lr=self.rotation.lr))
        if self.rotation is not None and self.rotation.refine:
            weights.refine(net, self.rotation.refine)
        if self.rotation is not None and self.rotation.sample is not None:
            self._resample(0)

    def weight_penalty(self, share: float) -> Losses | None:
        """The penalties at ``share`` of the run, or None where there are none: what is added to the net's loss."""
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for penalty, weight, schedule in self.penalties:
            factor = weight * schedule(share)
            if factor == 0:
                continue
            value = penalty()
            terms[penalty.name] = value.detach()
            total = factor * value if total is None else total + factor * value
        if self.rotation is not None and self.rotation.method == "relaxed":
            value = weights.relaxation(self.net, 1.0)
            terms["relaxation"] = value.detach()
            total = self.rotation.relaxation * value if total is None else total + self.rotation.relaxation * value
        return None if total is None else (total, terms)

    def finish_step(self, done: int) -> None:
        """After ``done`` steps: the next episode of stochastic OPT, when it is due."""
        if self.rotation is not None and self.rotation.sample is not None and done % self.rotation.episode == 0:
            self._resample(done // self.rotation.episode)

    def scalars(self) -> dict[str, float]:
        """What the optimal learning rate has done, by layer."""
        found = {}
        for rule in self.rules:
            if isinstance(rule, OptimalLearningRate):
                for name, numbers in rule.statistics().items():
                    found |= {f"olr/{name}/{what}": value for what, value in numbers.items()}
        return found

    @torch.no_grad()
    def spectrum(self) -> dict[str, Mapping[str, float]]:
        """Condition of every constrained, penalised or ruled layer, and of every decomposed covariance.

        A covariance's largest eigenvalue follows the scale of the layers before it, so where there is one, all layers
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
        """What the rules remember."""
        return {f"{i}/{name}": t for i, rule in enumerate(self.rules) for name, t in rule.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        for i, rule in enumerate(self.rules):
            prefix = f"{i}/"
            mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            if mine:
                rule.load_state_dict(mine)

    def describe(self) -> dict[str, str]:
        """For the user: on which layers each constraint, penalty and rule is."""
        facts: dict[str, str] = {}
        for name, _, _, constraint in list_constrained(self.net):
            key = f"{type(constraint).__name__} on"
            facts[key] = f"{facts[key]}, {name}" if key in facts else name
        if projectors := [n for n, part in self.net.named_modules() if isinstance(part, HouseholderProjector)]:
            facts["HouseholderProjector on"] = ", ".join(projectors)
        facts |= {f"{p.name} on": ", ".join(p.names) for p, _, _ in self.penalties}
        return facts | {f"{type(r).__name__} on": ", ".join(n for n, _ in r.parameters) for r in self.rules}

    def _resample(self, episode: int) -> None:
        weights.resample(self.net, episode, optimizers=[self.optimizer], seed=self.seed)

    def _refuse_constant(self, penalty: Penalty, key: str) -> None:
        fixed = {name: c for name, _, _, c in list_constrained(self.net) if isinstance(c, Rotation | Orthogonal)}
        for selected in penalty.selected:
            constraint = fixed.get(selected.name)
            square = penalty.name in SPECTRAL or selected.view.rows <= selected.view.columns
            rotated = isinstance(constraint, Rotation) and constraint.method != "relaxed"
            if penalty.name in INVARIANT and (rotated or (isinstance(constraint, Orthogonal) and square)):
                raise UserError(
                    f"{key}: the norm of {selected.name} ({type(constraint).__name__.lower()}) leaves {penalty.name} "
                    "as it is, whatever the parameter; choose other layers"
                )


def _rule(config: GradientRuleConfig, optimizer: Optimizer, net: nn.Module) -> GradientRule:
    if config.kind == "optimal_learning_rate":
        return OptimalLearningRate(optimizer, net, layers=config.layers, form=config.form)
    options: dict[str, Any] = config.model_dump(
        include={"scale", "every", "momentum", "nesterov", "method", "rank_tolerance"}
    )
    return NearestOrthogonalGradient(optimizer, net, layers=config.layers, **options)


def condition_numbers(matrix: Tensor) -> dict[str, float]:
    values = torch.linalg.svdvals(matrix)
    smallest = float(values[-1])
    return {
        "norm": float(values.norm()),
        "sigma": float(values[0]),
        "condition": float(values[0]) / smallest if smallest > 0 else float("inf"),
    }
