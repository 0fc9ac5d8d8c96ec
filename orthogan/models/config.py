"""The sections of a config that define the networks and their constraints, penalties, rules and whitening."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator
from torch import nn

from orthogan.config.base import (
    KindOf,
    Layers,
    Options,
    Place,
    Positive,
    Section,
    Width,
    marker_of,
    section_of_options,
)
from orthogan.gradients.rule import GRADIENT_RULE, GradientRuleConfig
from orthogan.linalg.roots import InverseMethod, SqrtMethod
from orthogan.models.classifiers.base import CLASSIFIERS
from orthogan.models.codes import CodesConfig
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS
from orthogan.penalties.network import PENALTY, PenaltyConfig
from orthogan.weights.network import CONSTRAINT, ConstraintConfig
from orthogan.weights.spectral import SpectralConfig

if TYPE_CHECKING:
    from orthogan.config.schema import Config

# what a network is given besides its options
SIZES = ("self", "resolution", "image_channels", "channels", "latent_dim", "num_classes", "pooling")
OLD_CLASSIFIERS = {
    "LearnedNeurons": "learned-neurons",
    "StemResNet": "stem-resnet",
    "PooledResNet": "pooled-resnet",
}


class WhiteningConfig(Section):
    """Which batch norms of a net whiten their input, and how."""

    layers: Layers = Field(
        default=[], description="name patterns of the batch norms to replace by decorrelated batch norms; [] = none"
    )
    groups: Width = Field(default=1, description="number of channel groups, each whitened separately")
    eps: Positive = Field(default=1e-2, description="value added to the diagonal of the covariance")
    method: InverseMethod = Field(default="eigh", description="how to compute the inverse square root")

    def unused(self) -> tuple[str, Collection[str]]:
        """Without layers, nothing is whitened."""
        return ("", ()) if self.layers else ("layers", ("groups", "eps", "method"))


def section_of_net(make: Callable[..., nn.Module]) -> type[Section]:
    """Return the section of a registered network's options: the keyword arguments of its class that are not sizes."""
    fixed = make.keywords if isinstance(make, partial) else {}
    net: Any = make.func if isinstance(make, partial) else make
    return section_of_options(net.__init__, Section, *SIZES, *fixed)


class NetConfig(Section):
    """What a generator, a discriminator and any other network have in common."""

    renamed: ClassVar = {"gradients": "gradient_transforms"}
    chooses_options: ClassVar = "kind"

    kind: str
    channels: Width
    options: Options = Field(default={}, description="additional keyword arguments of the class")
    norm: Annotated[ConstraintConfig, CONSTRAINT] = ConstraintConfig()
    penalties: list[Annotated[PenaltyConfig, PENALTY]] = Field(
        default=[], max_length=100, description="penalties on the weights: [{kind: …, weight: …}, …]"
    )
    gradient_transforms: list[Annotated[GradientRuleConfig, GRADIENT_RULE]] = Field(
        default=[], max_length=100, description="transforms of the gradients between backward and step: [{kind: …}, …]"
    )
    whitening: WhiteningConfig = WhiteningConfig()

    @classmethod
    def option_names(cls, choice: str) -> Collection[str] | None:
        """Return the options of the network ``choice``."""
        section = cls._options_of(choice)
        return None if section is None else section.model_fields

    @classmethod
    def _options_of(cls, kind: str) -> type[Section] | None:
        """Return the section of the options of ``kind``; None where it is not registered, such as the user's own."""
        named: KindOf | None = marker_of(cls.model_fields["kind"].rebuild_annotation(), KindOf)
        return None if named is None or ":" in kind else section_of_net(named.registry.get(kind))

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        if not self.options or (section := self._options_of(self.kind)) is None:
            return self
        for option in self.options:
            if option not in section.model_fields:
                there = ", ".join(section.model_fields) or "none"
                raise ValueError(f"options.{option}: {self.kind!r} has no such option; it has {there}")
        try:
            section.model_validate(self.options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"options.{'.'.join(map(str, first['loc']))}: {self.kind}: {first['msg']}") from None
        return self

    def check(self, config: Config, name: str) -> None:
        """Refuse settings that conflict with the constraint and the rules of this network. Raises ``ValueError``."""
        self.norm.check(config, name)
        for rule in self.gradient_transforms:
            rule.rule.check(config, self, f"model.{name}.gradient_transforms")


class GeneratorConfig(NetConfig):
    """The generator."""

    kind: Annotated[str, KindOf(GENERATORS)] = Field(default="sngan", description="architecture")
    channels: Width = Field(default=256, description="base width [feature maps]")
    latent_dim: Width = Field(default=128, description="dimension of the latent z")
    codes: CodesConfig = CodesConfig()

    @model_validator(mode="after")
    def _codes_fit(self) -> Self:
        if self.codes.size > self.latent_dim:
            raise ValueError(
                f"codes: {self.codes.size} coordinates of codes do not fit into latent_dim = {self.latent_dim}; raise "
                "latent_dim, or use fewer codes"
            )
        return self


class CovariancePoolingConfig(Section):
    """Pooling by the matrix square root of the covariance of the last map."""

    dimension: Width = Field(
        default=64, description="covariance: number of channels after the 1x1 convolution that reduces them"
    )
    method: SqrtMethod = Field(default="newton_schulz", description="covariance: how to compute the matrix square root")

    def unused(self) -> tuple[str, Collection[str]]:
        """Only covariance pooling has options."""
        return ("", ()) if getattr(self, "kind", "") == "covariance" else ("kind", ("dimension", "method"))


class PoolingConfig(CovariancePoolingConfig):
    """How the discriminator pools its last map."""

    kind: Literal["sum", "covariance"] = Field(
        default="sum", description="sngan: pooling of the last feature map before the last linear layer"
    )


class DiscriminatorConfig(NetConfig):
    """The discriminator."""

    kind: Annotated[str, KindOf(DISCRIMINATORS)] = Field(default="sngan", description="architecture")
    channels: Width = Field(default=128, description="base width [feature maps]")
    norm: Annotated[ConstraintConfig, CONSTRAINT] = SpectralConfig()
    pooling: PoolingConfig = PoolingConfig()


class ClassifierPoolingConfig(CovariancePoolingConfig):
    """How a classifier pools its last map."""

    kind: Literal["mean", "covariance"] = Field(
        default="mean", description="pooling of the last feature map before the last linear layer"
    )


class ClassifierConfig(NetConfig):
    """The classifier."""

    kind: Annotated[str, KindOf(CLASSIFIERS)] = Field(
        default="resnet18", description="architecture; wide ResNets also as wrn-DEPTH-WIDTH"
    )
    channels: Width = Field(
        default=64,
        description="width of the first stage (densenet: growth rate); published: 64, resnet20 to 110 and wrn 16, "
        "densenet 12",
    )
    pooling: ClassifierPoolingConfig = ClassifierPoolingConfig()

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Convert configs of 0.1, in which three architectures were part of the studies."""
        tree = super().read_old_keys(tree)
        module, _, name = str(tree.get("kind")).rpartition(":")
        old = module.startswith("orthogan.studies.") and name in OLD_CLASSIFIERS
        return tree | {"kind": OLD_CLASSIFIERS[name]} if old else tree


class ModelConfig(Section):
    """All nets, and the weights that they start from."""

    only_for: ClassVar = {"gan": ("init", "generator", "discriminator"), "classifier": ("classifier",)}

    init: Place | None = Field(
        default=None,
        description="start from the weights of this run, checkpoint (averaged G, and D) or .safetensors file (G); "
        "null = random weights",
    )
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    classifier: ClassifierConfig = ClassifierConfig()

    def check_run(self, config: Config) -> None:
        """Refuse settings that conflict with the constraints, rules and pooling of the task's networks."""
        for name in ("generator", "discriminator") if config.task == "gan" else ("classifier",):
            net: NetConfig = getattr(self, name)
            net.check(config, name)
        pooling, penalty = self.discriminator.pooling, config.loss.gradient_penalty
        twice = pooling.method in ("eigh", "newton_schulz", "eigh_autograd")
        if pooling.kind == "covariance" and penalty.kind != "none" and not twice:
            raise ValueError(
                "model.discriminator.pooling.method: a gradient penalty differentiates D twice, which only "
                "'newton_schulz', 'eigh' and 'eigh_autograd' allow"
            )
