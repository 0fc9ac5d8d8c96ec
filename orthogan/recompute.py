"""Forward passes that are repeated inside a backward pass, as activation checkpointing does."""

from __future__ import annotations

import torch


def is_repeated() -> bool:
    """Return whether autograd is running a backward pass on this thread.

    A forward pass at that time repeats an earlier one (``torch.utils.checkpoint``). It has to give the same result, so
    layers leave their state alone. Always False inside ``torch.compile``, which does not repeat such changes.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
