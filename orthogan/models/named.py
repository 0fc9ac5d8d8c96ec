"""A net that somebody else wrote, by name."""

from __future__ import annotations

import torch
from torch import nn

from orthogan.errors import UserError
from orthogan.models.modes import need_numbers
from orthogan.named_code import import_made


def instantiate(name: str) -> nn.Module:
    """The net that ``module:net`` names, or what ``module:Class`` or ``module:function`` makes without arguments.

    Made under a fixed seed. Raises ``UserError`` where there is none.
    """
    made = import_made(name, "SUBJECT", nn.Module)
    if not isinstance(made, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                made = made()
            except Exception as error:  # the user's own code
                raise UserError(
                    f"{name}: cannot be called without arguments: {type(error).__name__}: {error}; "
                    "name a function that builds the net and loads its weights"
                ) from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name}: gives a {type(made).__name__}, not an nn.Module; name a class or a function of one")
    need_numbers(made)
    return made
