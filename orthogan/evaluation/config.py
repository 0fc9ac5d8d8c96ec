"""The section ``evaluation`` of a config: what is measured in training, when and how."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orthogan.config.base import BatchSize, Count, KindOf, MayNameCode, Section
from orthogan.evaluation.metric import METRICS, OF_IMAGES, known_metric

MetricName = Annotated[str, Field(max_length=200), KindOf(METRICS)]


class EvaluationConfig(Section):
    """What is measured in training, when and how."""

    only_for: ClassVar = {"gan": ("reference_samples", "extractor", "precision")}
    task_defaults: ClassVar = {"classifier": {"metrics": ["accuracy"], "best": "accuracy"}}

    every: Count = Field(default=5000, description="score G or the classifier every so many steps; 0 = never [steps]")
    at_start: bool = Field(default=False, description="also score the untrained net")
    metrics: list[MetricName] = Field(
        default=["fid"],
        description="what to measure: fid, isc, kid, prc, path lengths (ppl2_wend, …), or module:Class of your own; "
        "for a classifier accuracy",
        min_length=1,
        max_length=100,
    )
    best: MetricName = Field(default="fid", description="metric that chooses the checkpoint in best/")
    samples: Annotated[int, Field(ge=2, le=10**7)] = Field(
        default=10_000, description="fakes a measurement; of a classifier: training images, for the gap [images]"
    )
    reference_samples: Annotated[int, Field(ge=2, le=10**9)] | None = Field(
        default=None, description="compare with a seeded subset of the real images; null = all [images]"
    )
    kid_subset_size: Annotated[int, Field(ge=2, le=10**6)] = Field(
        default=1000, description="of kid: images in each of its 100 subsets; 1000 as published [images]"
    )
    extractor: Annotated[str, MayNameCode()] = Field(
        default="auto", description="auto = inception if its weights are here, else efficientnet-lite0"
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="of sampling and features: fp32, as published, or bf16; auto = bf16 sampling where it is fast",
    )
    batch_size: BatchSize = Field(default=64, description="[images]")
    background: Literal["auto", True, False] = Field(
        default="auto",
        description="score in a process of its own while training goes on; auto = where one process trains on a GPU "
        "(a CPU has nothing to spare, and several processes share a score)",
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = Field(
        default="auto", description="background: where it is scored, such as cpu or cuda:1; auto = where it is trained"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.device != "auto" and self.background is not True:
            raise ValueError(
                f"device: {self.device!r} is for a scoring process of its own; set evaluation.background to true, "
                "or leave it at 'auto'"
            )
        if self.best not in self.metrics:
            raise ValueError(f"best: {self.best!r} is not among the metrics {self.metrics}")
        return self

    def check_run(self, config: Any) -> None:
        """Refuse a metric that needs what the task does not give it, and a best metric without a better direction."""
        task: str = config.task
        there = {"classifier", "test"} if task == "classifier" else OF_IMAGES | {"pairs", "generator"}
        for name in self.metrics:
            # the defaults are known to fit, and finding a metric by its name takes a second
            metric = None if name == {"gan": "fid", "classifier": "accuracy"}[task] else known_metric(name)
            if metric and metric.needs - there:
                raise ValueError(
                    f"evaluation.metrics: {name!r} needs the {min(metric.needs - there)}, which task {task!r} does "
                    f"not give it; choose {'accuracy, corruptions, …' if task == 'classifier' else 'fid, kid, …'}"
                )
            if metric and metric.better == "none" and name == self.best:
                raise ValueError(f"evaluation.best: neither lower nor higher {name!r} is better; choose another metric")
