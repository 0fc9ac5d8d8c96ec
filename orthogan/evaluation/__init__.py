"""stub"""
from dataclasses import dataclass
@dataclass
class MetricResult: metric="fid"
def evaluate(*a, **k): return []
def evaluate_with_reference(*a, **k): return []
def append_jsonl(*a): pass
def table(*a): return ""
