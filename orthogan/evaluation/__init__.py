"""Scores with their protocol: FID, Inception Score, KID, precision and recall."""

from orthogan.evaluation.evaluate import evaluate
from orthogan.evaluation.extractors import Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.result import MetricResult, append_jsonl, table

__all__ = [
    "Extractor",
    "MetricResult",
    "append_jsonl",
    "evaluate",
    "load_extractor",
    "resolve_extractor",
    "table",
]
