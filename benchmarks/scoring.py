"""The Fréchet distance of a contender's generator, measured by orthogan in the contender's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from orthogan.data import ImageSource
from orthogan.evaluation import evaluate
from orthogan.models.protocol import Generator


def scorer(
    shown: Callable[[], Generator], source: ImageSource, device: torch.device
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers a request with keys ``samples``, ``reference_samples``, ``extractor`` and ``seed``."""

    def score(request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        result = evaluate(shown(), source, metrics=["fid"], device=device, progress=False, **request)[0]
        return {"fd": result.value, "protocol": result.protocol, "took": time.perf_counter() - began}

    return score
