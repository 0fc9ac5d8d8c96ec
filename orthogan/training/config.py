"""Config sections of training: losses, optimizers, the loop, logs and checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from orthogan.config.base import (
    BatchSize,
    Count,
    Decay,
    Iterations,
    KindOf,
    NotNegative,
    PositiveInt,
    Section,
)
from orthogan.losses import LOSSES
from orthogan.penalties.contrastive import ContrastiveConfig
from orthogan.penalties.information import InformationConfig
from orthogan.penalties.input_gradient import GRADIENT_PENALTIES
from orthogan.penalties.latent import LATENT_PENALTY, LatentPenaltyConfig
from orthogan.penalties.total_correlation import TotalCorrelationConfig
from orthogan.training.optimizers import (
    CLASSIFIER_OPTIMIZER,
    GAN_OPTIMIZER,
    ClassifierOptimizerConfig,
    GanOptimizerConfig,
)
from orthogan.training.optimizers.adam import AdamConfig
from orthogan.training.optimizers.sgd import SGDConfig
from orthogan.training.schedules import SCHEDULE, ScheduleConfig
from orthogan.training.schedules.constant import Constant
from orthogan.training.trackers.tracker import TRACKERS

if TYPE_CHECKING:
    from orthogan.config.schema import Config


class GradientPenaltyConfig(Section):
    """The penalty on the gradient of D at its input."""

    kind: Annotated[str, KindOf(GRADIENT_PENALTIES)] = Field(
        default="none", description="penalty on the gradient of D with respect to its input"
    )
    weight: NotNegative = Field(
        default=10.0, description="wgan-gp: lambda in lambda (|g| - 1)^2; r1, r2: gamma in gamma/2 |g|^2"
    )
    interval: PositiveInt = Field(
        default=1, description="lazy regularization: apply the penalty every N updates of D, multiplied by N"
    )

    def unused(self) -> tuple[str, Collection[str]]:
        """Without a penalty, its weight and interval have no effect."""
        return ("kind", ("weight", "interval")) if self.kind == "none" else ("", ())

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.kind == "wgan-gp" and self.interval != 1:
            raise ValueError("interval: wgan-gp is applied at every update of D; set it to 1")
        return self


class LossConfig(Section):
    """The adversarial loss and the penalties that are added to it."""

    only_for: ClassVar = {
        "gan": ("kind", "gradient_penalty", "latent_penalty", "information", "contrastive", "total_correlation"),
        "classifier": ("label_smoothing",),
    }

    kind: Annotated[str, KindOf(LOSSES)] = Field(
        default="hinge", description="adversarial loss; relativistic compares real image i with fake image i"
    )
    gradient_penalty: GradientPenaltyConfig = GradientPenaltyConfig()
    latent_penalty: Annotated[LatentPenaltyConfig, LATENT_PENALTY] = LatentPenaltyConfig()
    information: InformationConfig = InformationConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    total_correlation: TotalCorrelationConfig = TotalCorrelationConfig()
    label_smoothing: Decay = Field(
        default=0.0, description="classifier: fraction of each label that is spread over all classes [0-1]"
    )

    def check_run(self, config: Config) -> None:
        """Check that a Wasserstein critic is Lipschitz, and that the parts of a latent penalty divide the batch."""
        norm, training, latent = config.model.discriminator.norm, config.training, self.latent_penalty
        bounded = norm.lipschitz or ":" in norm.kind or self.gradient_penalty.kind != "none"
        if self.kind == "wasserstein" and not bounded:
            raise ValueError(
                "loss.gradient_penalty.kind: a Wasserstein critic must be Lipschitz; use 'wgan-gp', or "
                "model.discriminator.norm.kind 'spectral', 'stable_rank' or 'orthogonal'"
            )
        if latent.kind != "none" and training.fakes % (training.accumulate * latent.shrink):
            raise ValueError(
                f"loss.latent_penalty.shrink: {latent.shrink} parts (times accumulate {training.accumulate}) do not "
                f"divide training.generator_batch_size = {training.fakes}"
            )
        codes = config.model.generator.codes
        for name, section in (("information", self.information), ("contrastive", self.contrastive)):
            if section.weight and not codes.size:
                raise ValueError(
                    f"loss.{name}.weight: there are no codes; set model.generator.codes.continuous, such as 5"
                )
        if self.contrastive.weight and codes.continuous + len(codes.categorical) < 2:
            raise ValueError("loss.contrastive.weight: at least two codes are needed; set model.generator.codes")
        if self.total_correlation.weight and (codes.continuous < 2 or not self.information.weight):
            raise ValueError(
                "loss.total_correlation.weight: two or more continuous codes that Q predicts are needed; set "
                "model.generator.codes.continuous and loss.information.weight"
            )
        pairs = self.contrastive.batch_size or training.batch_size
        if self.contrastive.weight and pairs % training.accumulate:
            raise ValueError(
                f"loss.contrastive.batch_size: training.accumulate = {training.accumulate} must divide {pairs}"
            )


class OptimizerConfig(Section):
    """The optimizers of all nets."""

    only_for: ClassVar = {"gan": ("generator", "discriminator"), "classifier": ("classifier",)}

    generator: Annotated[GanOptimizerConfig, GAN_OPTIMIZER] = AdamConfig()
    discriminator: Annotated[GanOptimizerConfig, GAN_OPTIMIZER] = AdamConfig()
    classifier: Annotated[ClassifierOptimizerConfig, CLASSIFIER_OPTIMIZER] = SGDConfig()


LONGEST = 0.28  # relative length of an average; that of a uniform profile is 12 ** -0.5 = 0.289
SNAPSHOTS = 32  # of the averages in a run, where the config does not say how often


class EmaConfig(Section):
    """The moving average of the weights of G."""

    kind: Literal["half_life", "power"] = Field(
        default="half_life",
        description="half_life: one average; power: one per length, stored so that `orthogan ema` can choose the "
        "length after training",
    )
    half_life: Count = Field(
        default=20_000, description="half_life: half-life of the moving average of G's weights; 0 = no average [images]"
    )
    warmup: NotNegative = Field(
        default=0.05,
        description="half_life: limit the half-life to this fraction of the images seen so far; 0 = no limit [0-1]",
    )
    lengths: list[Annotated[float, Field(gt=0.0, lt=LONGEST)]] = Field(
        default=[0.05, 0.1],
        min_length=2,
        max_length=8,
        description="power: standard deviation of the profile of each average, as a fraction of the training; the "
        "first one is shown and scored",
    )
    snapshot_every: Count = Field(
        default=0,
        description="power: store the averages every N steps, each time one float32 copy of G per length; 0 = "
        f"{SNAPSHOTS} times per run [steps]",
    )

    @property
    def on(self) -> bool:
        """Whether there is an average."""
        return self.kind == "power" or self.half_life > 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in ("lengths", "snapshot_every") if self.kind == "half_life" else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: does not apply to kind 'half_life'; omit it, or set kind to 'power'")
        if len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths: {self.lengths}: the lengths must be different, such as [0.05, 0.1]")
        return self


class TrainingConfig(Section):
    """Length, batch sizes, and how steps are computed."""

    renamed: ClassVar = {"n_dis": "d_steps_per_g_step"}
    exclusive: ClassVar = (("steps", "kimg"),)
    only_for: ClassVar = {"gan": ("generator_batch_size", "d_steps_per_g_step", "freeze_d", "fakes_at_once", "ema")}
    task_defaults: ClassVar = {"classifier": {"ema": {"half_life": 0}}}

    steps: PositiveInt = Field(default=50_000, description="length of the run [updates of the generator or classifier]")
    kimg: Annotated[float, Field(gt=0, le=10**6)] | None = Field(
        default=None,
        description="length of the run, instead of steps: real images that D or the classifier sees, rounded up to "
        "whole steps; null = use steps [thousands of images]",
    )
    batch_size: BatchSize = Field(
        default=64, description="images per update of D or the classifier, summed over processes [images]"
    )
    generator_batch_size: BatchSize | None = Field(
        default=None, description="fake images per update of G, summed over processes; null = 2 * batch_size [images]"
    )
    d_steps_per_g_step: Iterations = Field(default=5, description="updates of D per update of G")
    freeze_d: Count = Field(
        default=0, description="fine-tuning: do not train the first N blocks of D, which model.init sets (FreezeD)"
    )
    fakes_at_once: bool = Field(
        default=False,
        description="generate the fake images of all D updates of a step in one forward pass of G, with shared batch "
        "statistics",
    )
    accumulate: PositiveInt = Field(
        default=1, description="split every batch into N parts and accumulate their gradients, to save memory"
    )
    schedule: Annotated[ScheduleConfig, SCHEDULE] = Constant()
    ema: EmaConfig = EmaConfig()
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="precision of the forward and backward passes; auto = bf16 if it is fast here"
    )
    channels_last: bool = Field(default=True, description="use the channels_last memory format (NHWC)")
    compile: Literal["auto", "none", "default", "reduce-overhead", "max-autotune"] = Field(
        default="auto",
        description="mode of torch.compile; auto = default on a GPU, none on a CPU",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device to train on; auto = a GPU if there is one"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="threads per process on a CPU; null = OMP_NUM_THREADS or, if it is not set, one per core, and "
        "fewer while other processes keep cores busy, which can change the last digits of a run",
    )

    @property
    def fakes(self) -> int:
        """Fakes in one generator update."""
        return self.generator_batch_size or 2 * self.batch_size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key, size in (("batch_size", self.batch_size), ("generator_batch_size", self.fakes)):
            if size % self.accumulate:
                raise ValueError(f"accumulate: {self.accumulate} does not divide {key} = {size}")
        if self.accumulate > 1 and self.compile in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                f"compile: {self.compile!r} replays graphs that overwrite accumulated gradients, so it cannot be "
                f"combined with accumulate = {self.accumulate}; use 'default'"
            )
        return self

    def check_run(self, config: Config) -> None:
        """What is kept fixed must come from somewhere."""
        if self.freeze_d and config.model.init is None:
            raise ValueError(
                "training.freeze_d: a discriminator that starts from the random seed must not be frozen; "
                "set model.init to the model that you fine-tune"
            )


class LoggingConfig(Section):
    """What is written during a run, and how often."""

    only_for: ClassVar = {"gan": ("samples_every", "watch_every")}

    every: PositiveInt = Field(default=50, description="log the losses every N steps [steps]")
    spectrum_every: Count = Field(
        default=1000,
        description="log the conditioning of constrained, penalized or transformed layers and the activeness of G's "
        "latent every N steps; 0 = never [steps]",
    )
    watch_every: Count = Field(
        default=250,
        description="check for overfitting of D and collapse of G every N steps, and warn; 0 = never [steps]",
    )
    samples_every: Count = Field(
        default=1000, description="write fakes-NNNNNNN.png every N steps; 0 = only at the start and the end [steps]"
    )
    samples: Annotated[int, Field(ge=1, le=4096)] = Field(default=64, description="images per grid [images]")
    trackers: list[Annotated[str, Field(max_length=200), KindOf(TRACKERS)]] = Field(
        default=["tensorboard"],
        description="where to send curves, scores and samples; tensorboard writes files in the run folder. log.jsonl "
        "is always written",
    )
    project: str = Field(
        default="orthogan", min_length=1, description="name of the project or experiment in the trackers"
    )
    tensorboard: bool = Field(default=True, description="false removes tensorboard from the trackers")
    tensorboard_spectrum: bool = Field(
        default=False,
        description="also send the values of spectrum_every to the trackers, as several curves per layer",
    )


class CheckpointConfig(Section):
    """When the state is saved, and what is kept of it."""

    every: PositiveInt = Field(default=1000, description="save a checkpoint every N steps [steps]")
    keep: PositiveInt = Field(
        default=2, description="number of newest checkpoints to keep, in addition to the best one"
    )
