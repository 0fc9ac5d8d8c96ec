"""The config section ``evaluation``: what to measure during training, when and how."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orthogan.config.base import BatchSize, Count, KindOf, MayNameCode, Section
from orthogan.evaluation.metric import METRICS, OF_GENERATORS, known_metric

MetricName = Annotated[str, Field(max_length=200), KindOf(METRICS)]


class EvaluationConfig(Section):
    """What to measure during training, when and how."""

    only_for: ClassVar = {"gan": ("reference_samples", "extractor", "precision")}
    task_defaults: ClassVar = {"classifier": {"metrics": ["accuracy"], "best": "accuracy"}}

    every: Count = Field(default=5000, description="score the generator or classifier every N steps; 0 = never [steps]")
    at_start: bool = Field(default=False, description="also score the network before training")
    metrics: list[MetricName] = Field(
        default=["fid"],
        description="metrics to compute; for a classifier accuracy, corruptions, fgsm, pgd, …",
        min_length=1,
        max_length=100,
    )
    best: MetricName = Field(default="fid", description="metric that selects the checkpoint in best/")
    samples: Annotated[int, Field(ge=2, le=10**7)] = Field(
        default=10_000,
        description="generated images per score; classifier: training images used for the train-test gap [images]",
    )
    reference_samples: Annotated[int, Field(ge=2, le=10**9)] | None = Field(
        default=None, description="compare with a random subset of the real images; null = all [images]"
    )
    kid_subset_size: Annotated[int, Field(ge=2, le=10**6)] = Field(
        default=1000, description="kid: images in each of its 100 subsets; 1000 as published [images]"
    )
    extractor: Annotated[str, MayNameCode()] = Field(
        default="auto",
        description="network that computes the features; auto = inception if its weights are available, else "
        "efficientnet-lite0",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="precision of sampling and features; fp32 as published; auto = sample in bf16 if it is fast",
    )
    batch_size: BatchSize = Field(default=64, description="images per batch [images]")
    background: Literal["auto", True, False] = Field(
        default="auto",
        description="score in a separate process while training continues; auto = only if a single process trains on "
        "a GPU",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = Field(
        default="auto",
        description="device of the separate scoring process, such as cpu or cuda:1; auto = the training device",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.device != "auto" and self.background is not True:
            raise ValueError(
                f"device: {self.device!r} applies only to a separate scoring process; set evaluation.background to "
                "true, or evaluation.device to 'auto'"
            )
        if self.best not in self.metrics:
            raise ValueError(f"best: {self.best!r} is not among the metrics {self.metrics}")
        return self

    def check_run(self, config: Any) -> None:
        """Refuse metrics that do not apply to the task, and a best metric for which no direction is better."""
        task: str = config.task
        there = {"classifier", "test"} if task == "classifier" else OF_GENERATORS
        for name in self.metrics:
            # the defaults are known to be valid, and looking up a metric by name takes a second
            metric = None if name == {"gan": "fid", "classifier": "accuracy"}[task] else known_metric(name)
            if metric and metric.needs - there:
                raise ValueError(
                    f"evaluation.metrics: {name!r} needs the {min(metric.needs - there)}, which task {task!r} does "
                    f"not have; choose {'accuracy, corruptions, …' if task == 'classifier' else 'fid, kid, …'}"
                )
            if metric and metric.better == "none" and name == self.best:
                raise ValueError(
                    f"evaluation.best: neither lower nor higher values of {name!r} are better; choose another metric"
                )
