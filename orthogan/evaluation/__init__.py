"""Metrics and their protocols: FID, Inception Score, KID, precision, recall, path lengths, accuracy, and your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthogan.lazy import lazy_names

if TYPE_CHECKING:
    from orthogan.evaluation.compare import fid
    from orthogan.evaluation.extractors.extractor import Extractor, load_extractor, resolve_extractor
    from orthogan.evaluation.measure import Incomplete, evaluate, evaluate_classifier
    from orthogan.evaluation.metric import METRICS, Inputs, Metric, Score
    from orthogan.evaluation.paths.path_length import path_length, perturbation_length
    from orthogan.evaluation.paths.traversal_length import traversal_length
    from orthogan.evaluation.result import MetricResult, MetricResults, append_jsonl, table

__all__ = [
    "METRICS",
    "Extractor",
    "Incomplete",
    "Inputs",
    "Metric",
    "MetricResult",
    "MetricResults",
    "Score",
    "append_jsonl",
    "evaluate",
    "evaluate_classifier",
    "fid",
    "load_extractor",
    "path_length",
    "perturbation_length",
    "resolve_extractor",
    "table",
    "traversal_length",
]

# imported on first use: reading a config only needs the names
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "compare": ("fid",),
        "measure": ("Incomplete", "evaluate", "evaluate_classifier"),
        "extractors.extractor": ("Extractor", "load_extractor", "resolve_extractor"),
        "metric": ("METRICS", "Inputs", "Metric", "Score"),
        "paths.path_length": ("path_length", "perturbation_length"),
        "paths.traversal_length": ("traversal_length",),
        "result": ("MetricResult", "MetricResults", "append_jsonl", "table"),
    },
)
