"""Training: the loop, its phases, its checkpoints; ``train`` and ``dry_run`` are what others call."""

from orthogan.training.run import dry_run, train

__all__ = ["dry_run", "train"]
