"""Fine-tuning with the first blocks of D fixed: FreezeD (Mo et al. 2020, arXiv 2002.10964)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from orthogan.errors import UserError
from orthogan.models.protocol import list_blocks
from orthogan.training.optimizer_state import keep_fixed
from orthogan.words import counted

Block = tuple[str, list[nn.Module]]


def first_blocks(discriminator: nn.Module, count: int, key: str) -> list[Block]:
    """The first ``count`` blocks of a discriminator, from the image on.

    A net of the user's own may say what its blocks are, by ``image_blocks()`` as of ``orthogan.models.Discriminator``;
    else they are its children, in the order in which they were made, lists and sequences taken apart.

    Raises:
        UserError: nothing would be left to train. ``key`` is what it blames.
    """
    if not count:
        return []
    own = getattr(discriminator, "image_blocks", None)
    blocks: list[Block] = list_blocks(discriminator) if own is None else own()
    if count >= len(blocks):
        names = ", ".join(name for name, _ in blocks)
        raise UserError(
            f"{key}: D has {counted(len(blocks), 'block')} ({names}), and at least one must be trained; "
            f"set {key} to at most {max(0, len(blocks) - 1)}"
        )
    return blocks[:count]


def freeze(optimizer: Optimizer, blocks: Sequence[Sequence[nn.Module]]) -> None:
    """Take the parameters of ``blocks`` out of training."""
    parameters = [p for block in blocks for module in block for p in module.parameters()]
    keep_fixed(optimizer, [p for p in parameters if p.requires_grad])
