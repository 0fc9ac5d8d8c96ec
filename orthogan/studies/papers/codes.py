"""Does a GAN learn one code per factor? InfoGAN, InfoGAN-CR, a total correlation, and what orthogonality adds."""

from __future__ import annotations

from typing import Any

from orthogan.data import open_configured
from orthogan.disentanglement import disentangle, recognizer
from orthogan.models.codes import codes_of
from orthogan.models.open import open_model
from orthogan.studies.finished import FinishedRun
from orthogan.studies.measures import cost
from orthogan.studies.papers import latent_measures
from orthogan.studies.papers.gan_measures import FRECHET, images
from orthogan.studies.papers.latent_measures import MIG, MODULARITY, RANDOM, SAP
from orthogan.studies.study import STUDIES, Claim, Keys, Measure, Method, Scale, Setting, Study, higher, lower
from orthogan.studies.values import MeasureResult, Value

G, D = "model.generator", "model.discriminator"
SPRITES, PORTRAITS = "sprites", "faces"
JEMMIG, EXPLICITNESS = "JEMMIG", "explicitness, published scale"
NAMES = {"mig": MIG, "jemmig": JEMMIG, "modularity": MODULARITY, "sap": SAP, "explicitness": EXPLICITNESS}
INFOGAN_CR, TC_GAN = "Lin et al., ICML 2020, arXiv:1906.06034", "TC-GAN, arXiv:2409.02672"
SAMPLES = 10_000  # real images whose codes are measured

INFORMATION: dict[str, Any] = {"loss.information.weight": 1.0}
# earlier than released: see docs/disentanglement.md
PAIRS: dict[str, Any] = {**INFORMATION, "loss.contrastive": {"weight": 2.0, "start": 0.05, "lr": 2e-3}}
CORRELATION: dict[str, Any] = {**INFORMATION, "loss.total_correlation.weight": 0.1}
# after the classifier of pairs has begun, but not much later: see docs/disentanglement.md
OROJAR: dict[str, Any] = {
    "loss.latent_penalty": {"kind": "orojar", "weight": 2e-7, "interval": 4, "start": 0.1, "ramp": 0.1}
}


def first(*rules: str) -> Keys:
    """Return the keys of gradient rules on the first layer of G, at the published learning rate of NOG under Adam."""
    return {
        f"{G}.gradient_transforms": [{"kind": rule, "layers": ["first"]} for rule in rules],
        "optimizer.generator.lr": 1e-4,
    }


METHODS = {
    "plain": Method({f"{G}.codes.continuous": 0}, "the same GAN without codes, for its image quality."),
    "infogan": Method(INFORMATION, "codes that Q reads from the images."),
    "tc": Method(CORRELATION, "InfoGAN, and a penalty on the total correlation of Q's means, in the spirit of TC-GAN."),
    "infogan-cr": Method(PAIRS, "InfoGAN, and a classifier of the code that two images share."),
    "orojar": Method({**INFORMATION, **OROJAR}, "InfoGAN, and orthogonal derivatives of the images by the latent."),
    "orojar-cr": Method({**PAIRS, **OROJAR}, "InfoGAN-CR and OroJaR: ours."),
    "hessian-cr": Method(
        {**PAIRS, "loss.latent_penalty": {"kind": "hessian", "weight": 1e-3, "interval": 4, "ramp": 0.1}},
        "InfoGAN-CR and the Hessian penalty.",
    ),
    "householder-cr": Method(
        lambda setting: {**PAIRS, f"{G}.norm": {"kind": "householder", "rank": LATENTS[setting]}},
        "InfoGAN-CR, and a Householder projector as the first layer of G.",
    ),
    "hard-cr": Method(
        {**PAIRS, f"{G}.norm": {"kind": "orthogonal", "layers": ["first"]}},
        "InfoGAN-CR, and an orthogonal first layer of G.",
    ),
    "nog-cr": Method({**PAIRS, **first("nearest_orthogonal")}, "InfoGAN-CR, and NOG on the first layer of G."),
    "nog+olr-cr": Method(
        {**PAIRS, **first("nearest_orthogonal", "optimal_learning_rate")}, "the same with NOG and OLR."
    ),
    "srn-cr": Method(
        {**PAIRS, f"{D}.norm": {"kind": "stable_rank", "c": 0.7}}, "InfoGAN-CR, and stable rank normalization of D."
    ),
}
CODES = {SPRITES: 5, PORTRAITS: 10}
LATENTS = {SPRITES: 10, PORTRAITS: 64}


def settings(steps: int, **data: Any) -> dict[str, Setting]:
    """Return both settings: sprites, and portraits, whose penalties are those of their own recipe."""

    def of(name: str, channels: int, weight: float) -> dict[str, Any]:
        return {
            "data": {"source": name, "resolution": 32, "channels": channels, "dequantize": False, **data},
            f"{G}.latent_dim": LATENTS[name],
            f"{G}.codes": {"continuous": CODES[name], "noise": "uniform"},
            "loss.gradient_penalty": {"kind": "r1+r2", "weight": weight, "interval": 8},
            "training.steps": steps,
        }

    return {
        SPRITES: Setting(
            of(SPRITES, 1, 0.01), "sprites, five factors, five codes and five uniform coordinates of noise"
        ),
        PORTRAITS: Setting(
            of(PORTRAITS, 3, 1.0), "portraits, 17 factors, ten codes and 54 uniform coordinates of noise"
        ),
    }


# configs/sprites/sngan-cr.yaml, but for its length
KEYS: dict[str, Any] = {
    G: {"kind": "sngan", "channels": 32},
    D: {"kind": "sngan", "channels": 32, "norm": {"kind": "none"}},
    "loss.kind": "relativistic",
    "optimizer.generator.lr": 1e-3,
    "optimizer.discriminator.lr": 1e-3,
    "training": {
        "batch_size": 16,
        "generator_batch_size": 16,
        "d_steps_per_g_step": 1,
        "schedule": {"kind": "linear", "start": 0.5},
        "ema": {"half_life": 10_000},
    },
    "logging": {"every": 100, "samples_every": 0, "spectrum_every": 0, "tensorboard": False},
    "checkpoint.every": 1000,
    "evaluation": {"every": 0, "samples": 5000, "reference_samples": 10_000, "background": False},
}
SMOKE: dict[str, Any] = KEYS | {
    G: {"kind": "sngan", "channels": 4},
    D: {"kind": "sngan", "channels": 4, "norm": {"kind": "none"}},
    "training": KEYS["training"] | {"device": "cpu"},
    "logging": {"every": 2, "samples": 4, "samples_every": 0, "spectrum_every": 0, "tensorboard": False},
    "checkpoint.every": 4,
    "evaluation": {"every": 0, "samples": 150, "reference_samples": 150, "batch_size": 32, "background": False},
}
DECIDED = ("plain", "infogan", "tc", "infogan-cr", "orojar-cr")


def read_codes(run: FinishedRun) -> MeasureResult:
    """Measure the codes that Q predicts for real images, and the same for a random basis of them.

    Nothing for a network without codes.
    """
    model = open_model(run.folder, trust=run.trust)
    if codes_of(model.generator) is None:
        return MeasureResult()
    results = disentangle(
        model.generator,
        [f"encoder:{name}" for name in NAMES],
        source=open_configured(run.config.data),
        encoder=recognizer(model.generator, model.discriminator),
        seeds=(0,),
        samples=min(SAMPLES, 4 * run.config.evaluation.samples),
        progress=False,
    )
    numbers: dict[str, Value] = {}
    for result in results:
        name = NAMES[result.metric.removeprefix("encoder:")]
        value, control = float(result), float(result.controls[RANDOM.removeprefix(", ")])
        if name == EXPLICITNESS:  # the published scale, on which chance is 0 and not 0.5
            value, control = 2 * value - 1, 2 * control - 1
        numbers[name] = Value(value, "higher", {"variant": result.label, **result.protocol})
        numbers[name + RANDOM] = Value(control, "")
    return MeasureResult(numbers)


def walks(run: FinishedRun) -> MeasureResult:
    """Draw what each code changes; nothing for a network without codes."""
    return MeasureResult() if codes_of(run.net()) is None else latent_measures.walks(run)


def every(method: str, than: str) -> tuple[Any, ...]:
    """Expect each score of the codes of ``method`` above that of ``than``."""
    return tuple(higher(name, method, than) for name in NAMES.values())


STUDY = Study(
    name="codes",
    title="Codes that are the factors",
    about="A GAN with codes that its discriminator reads from the images (InfoGAN), with what was published to make "
    "each code one factor of the data, and with orthogonality. The scores are those of the codes that Q predicts for "
    "real images, as InfoGAN-CR and TC-GAN measure.",
    baseline="infogan-cr",
    methods=METHODS,
    scales={
        "smoke": Scale(SMOKE, {SPRITES: settings(4, count=600)[SPRITES]}, 1, methods={name: {} for name in DECIDED}),
        "cpu": Scale(KEYS, settings(4000, count=50_000), 3, "Early in training: 64,000 images."),
        "decide": Scale(
            KEYS,
            settings(12_000, count=50_000),
            5,
            "192,000 images; the published runs have 20,600,000 at 64 pixels.",
            methods={name: {} for name in DECIDED},
        ),
        "full": Scale(
            KEYS, settings(320_000, count=50_000), 10, "As many steps as published, of a quarter of the batch."
        ),
    },
    measures=(
        Measure("images", images),
        Measure("codes", read_codes),
        Measure("walks", walks),
        Measure("cost", cost),
    ),
    claims=(
        Claim(
            "the classifier of pairs makes the codes of an InfoGAN better",
            f"{INFOGAN_CR}, table of dSprites (read)",
            every("infogan-cr", "infogan"),
            published="explicitness .62 and .54, JEMMIG .38 and .08, modularity .95 and .56, SAP .41 and .05",
        ),
        Claim(
            "a penalty on the total correlation of the codes makes them better than the classifier of pairs",
            f"{TC_GAN}, table of dSprites (read); its code was not released, ours is a normal approximation",
            every("tc", "infogan-cr"),
            published="explicitness .85 and .62, JEMMIG .45 and .38, modularity .98 and .95, SAP .48 and .41",
        ),
        Claim(
            "orthogonal derivatives make the codes of InfoGAN-CR better",
            "ours",
            every("orojar-cr", "infogan-cr"),
        ),
        Claim(
            "the codes also improve the images",
            "ours",
            (lower(FRECHET, "orojar-cr", "plain"), lower(FRECHET, "infogan-cr", "plain")),
        ),
    ),
)
STUDIES.register("codes")(STUDY)
