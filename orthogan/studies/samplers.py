"""Samplers of ``orthogan sweep``: samplers of optuna, which choose the values of the next trials."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orthogan.errors import UserError, install
from orthogan.registry import Registry

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def import_optuna() -> Any:
    """Return the package. Raises ``UserError`` if it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(f"--sampler needs {install('sweep')}; a list of values, key=a,b,c, needs nothing") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _adopt(thing: Any) -> Any:
    if not inspect.isfunction(thing):
        raise TypeError("expected a function of the number of earlier trials that returns a sampler of optuna")
    return thing


# A sampler is a function of the number of earlier trials, which serves as the random seed.
SAMPLERS: Registry[Callable[[int], BaseSampler]] = Registry("sampler", adopt=_adopt)


@SAMPLERS.register("tpe")
def tpe(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator, optuna's default; the first 8 trials are random."""
    return import_optuna().samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=8)


@SAMPLERS.register("random")
def random(seed: int) -> BaseSampler:
    """Independent random values."""
    return import_optuna().samplers.RandomSampler(seed=seed)


@SAMPLERS.register("gp")
def gp(seed: int) -> BaseSampler:
    """A Gaussian process."""
    return import_optuna().samplers.GPSampler(seed=seed)


@SAMPLERS.register("qmc")
def qmc(seed: int) -> BaseSampler:
    """A scrambled Sobol sequence: even coverage, whatever the scores are."""
    return import_optuna().samplers.QMCSampler(seed=0, scramble=True)
