"""Scores with their protocol: FID, Inception Score, KID, precision and recall, path lengths."""

from orthogan.evaluation.evaluate import Incomplete, evaluate
from orthogan.evaluation.fidelity.extractors import Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.paths.path_length import path_length, perturbation_length
from orthogan.evaluation.paths.traversal_length import traversal_length
from orthogan.evaluation.result import MetricResult, append_jsonl, table

__all__ = [
    "Extractor",
    "Incomplete",
    "MetricResult",
    "append_jsonl",
    "evaluate",
    "load_extractor",
    "path_length",
    "perturbation_length",
    "resolve_extractor",
    "table",
    "traversal_length",
]
