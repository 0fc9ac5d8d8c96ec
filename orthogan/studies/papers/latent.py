"""Does an orthogonal projection of the latent disentangle the factors of an image? Song, Sebe & Wang (TPAMI 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orthogan.studies.measures import cost, scores
from orthogan.studies.papers.latent_measures import (
    DCI,
    FLATNESS,
    MIG,
    RANDOM,
    SEFA,
    SUBSPACES,
    VP,
    along_sefa,
    native,
    projections,
    walks,
)
from orthogan.studies.study import (
    STUDIES,
    Claim,
    Hypothesis,
    Keys,
    Measure,
    Method,
    Scale,
    Setting,
    Study,
    Term,
    higher,
    lower,
)

G = "model.generator"
RANK = f"{G}.norm.householder.rank"  # the whole latent: all networks have equally many directions
EIGENGAN, SIMPLE, PORTRAITS = "eigengan", "simple-gan", "eigengan-faces"
PAPER = "Song, Sebe & Wang, TPAMI 2022"
LAYERS = {EIGENGAN: ["subspace"], PORTRAITS: ["subspace"], SIMPLE: ["first"]}
RULES = {"nog": "nearest_orthogonal", "olr": "optimal_learning_rate"}


def ruled(*rules: str) -> Callable[[str], Keys]:
    """Return the keys, by setting, of gradient rules on the latent's projections."""

    def keys(setting: str) -> Keys:
        return {f"{G}.gradient_transforms": [{"kind": RULES[rule], "layers": LAYERS[setting]} for rule in rules]}

    return keys


def penalised(setting: str) -> Keys:
    """Return the keys of EigenGAN's own penalty; for the simple GAN's first layer, rows are outputs, as usual."""
    return {f"{G}.penalties": [{"kind": "soft_orthogonality", "weight": 0.5, "layers": LAYERS[setting]}]}


def hard(setting: str) -> Keys:
    """Return the keys of an orthogonal U, or of a Householder projector as the simple GAN's first layer."""
    if setting == SIMPLE:
        return {f"{G}.norm.kind": "householder"}
    return {f"{G}.norm.kind": "orthogonal", f"{G}.norm.layers": LAYERS[setting]}


METHODS = {
    "none": Method({}, "orthogonal at the start, and nothing that keeps it."),
    "penalty": Method(penalised, "0.5 ||Gram - I||^2, as EigenGAN was published."),
    "nog": Method(ruled("nog"), "nearest orthogonal gradient on the layers that the latent enters."),
    "olr": Method(ruled("olr"), "optimal learning rate on them."),
    "nog+olr": Method(ruled("nog", "olr"), "both; the authors' code for GANs cannot, their figures have it."),
    "hard": Method(
        hard, "orthogonal by construction: U of EigenGAN, a Householder projector as first layer of the simple GAN."
    ),
}


def nets(eigengan: dict[str, Any], simple: dict[str, Any], note: str) -> dict[str, Setting]:
    """Return the two settings at one scale."""
    return {
        EIGENGAN: Setting({f"{G}.kind": "eigengan", **eigengan}, f"EigenGAN, {note}"),
        SIMPLE: Setting({f"{G}.kind": "simple-gan", **simple}, f"the vanilla GAN of the paper, {note}"),
    }


# as configs/recipes/sprites.yaml
CPU: dict[str, Any] = {
    "data": {"source": "sprites", "count": 20_000, "resolution": 32, "channels": 1, "dequantize": False},
    "model.discriminator": {"kind": "eigengan", "channels": 16, "norm": {"kind": "none"}},
    "loss": {"kind": "hinge", "gradient_penalty": {"kind": "r1", "weight": 1.0, "interval": 8}},
    "optimizer.generator": {"lr": 1e-3, "beta1": 0.5, "beta2": 0.99},
    "optimizer.discriminator": {"lr": 1e-3, "beta1": 0.5, "beta2": 0.99},
    "training": {
        "steps": 450,
        "batch_size": 64,
        "generator_batch_size": 64,
        "d_steps_per_g_step": 1,
        "ema": {"half_life": 2000},
    },
    "logging": {"every": 25, "samples_every": 0, "spectrum_every": 150, "tensorboard": False},
    "checkpoint.every": 150,
    "evaluation": {"every": 450, "samples": 1000, "reference_samples": 2000},
}
CPU_NETS = nets(
    {f"{G}.channels": 12, f"{G}.latent_dim": 26, f"{G}.options": {"dims": 6}},
    {f"{G}.channels": 24, f"{G}.latent_dim": 18, RANK: 18},
    "18 dimensions to look at, sprites",
)
# the published learning rate of NOG under Adam, and 22 times as many updates
DECIDE: dict[str, Any] = CPU | {
    "data": {"source": "sprites", "count": 50_000, "resolution": 32, "channels": 1, "dequantize": False},
    "optimizer.generator": {"lr": 1e-4, "beta1": 0.5, "beta2": 0.99},
    "optimizer.discriminator": {"lr": 1e-4, "beta1": 0.5, "beta2": 0.99},
    "training": CPU["training"] | {"steps": 10_000, "ema": {"half_life": 10_000}},
    "logging": {"every": 100, "samples_every": 0, "spectrum_every": 1000, "tensorboard": False},
    "checkpoint.every": 1000,
    "evaluation": {"every": 5000, "samples": 5000, "reference_samples": 10_000},
}
DECIDE_NET = {f"{G}.kind": "eigengan", f"{G}.channels": 12, f"{G}.latent_dim": 26, f"{G}.options": {"dims": 6}}
SMOKE = CPU | {
    "data": {"source": "sprites", "count": 64, "resolution": 32, "channels": 1, "dequantize": False},
    "model.discriminator": {"kind": "eigengan", "channels": 4, "norm": {"kind": "none"}},
    "training": {"steps": 4, "batch_size": 8, "generator_batch_size": 8, "d_steps_per_g_step": 1, "device": "cpu"},
    "logging": {"every": 2, "samples": 4, "samples_every": 0, "spectrum_every": 2, "tensorboard": False},
    "checkpoint.every": 4,
    "evaluation": {"every": 0, "samples": 48, "reference_samples": 48, "batch_size": 16},
}
SMOKE_NETS = nets(
    {f"{G}.channels": 4, f"{G}.latent_dim": 8, f"{G}.options": {"dims": 2}},
    {f"{G}.channels": 4, f"{G}.latent_dim": 6, RANK: 6},
    "6 dimensions to look at, sprites",
)
# As the released code of the paper trains, at 128 px, at which it has both networks. Adam makes an update for R1 after
# every 16th of D; a lazy penalty scales Adam for that, which the released code does not, so the keys are scaled back.
EXTRA = 17 / 16
FULL: dict[str, Any] = {
    "data": {"source": "folder", "resolution": 128, "channels": 3, "dequantize": False},
    "training": {"steps": 500_000, "batch_size": 64, "generator_batch_size": 64, "d_steps_per_g_step": 1},
    "logging": {"every": 100, "samples_every": 10_000, "spectrum_every": 10_000, "tensorboard": False},
    "checkpoint.every": 10_000,
    "evaluation": {"every": 50_000, "samples": 50_000},
}
FULL_NETS = nets(
    {
        f"{G}.channels": 16,
        f"{G}.latent_dim": 5 * 6 + 512,
        f"{G}.options": {"dims": 6},
        "model.discriminator": {"kind": "eigengan", "channels": 16, "norm": {"kind": "none"}},
        # 10 |g|^2 at every 16th update, where a lazy weight w means 16 w / 2
        "loss": {"kind": "hinge", "gradient_penalty": {"kind": "r1", "weight": 20.0 / 16, "interval": 16}},
        "optimizer.generator": {"lr": 1e-4, "beta1": 0.5, "beta2": 0.99},
        "optimizer.discriminator": {"lr": 1e-4 * EXTRA, "beta1": 0.5**EXTRA, "beta2": 0.99**EXTRA},
        "data.flip": True,
        "augment": {"kind": "diffaugment", "p": 0.6},
        "training.ema": {"half_life": 10_000, "warmup": 0.0},
    },
    {
        f"{G}.channels": 64,
        f"{G}.latent_dim": 30,
        RANK: 30,
        "model.discriminator": {"kind": "simple-gan", "channels": 64, "norm": {"kind": "none"}},
        # 10 with half of the loss of D
        "loss": {"kind": "non_saturating", "gradient_penalty": {"kind": "wgan-gp", "weight": 20.0}},
        "training.batch_size": 128,
        "training.generator_batch_size": 128,
        "training.schedule": {"kind": "linear", "start": 0.5},
        "training.ema": {"half_life": 0},
        "optimizer.generator": {"lr": 2e-4, "beta1": 0.5, "beta2": 0.999},
        "optimizer.discriminator": {"lr": 2e-4, "beta1": 0.5, "beta2": 0.999},
    },
    "a folder of faces",
)


def beyond_random(metric: str, setting: str) -> Hypothesis:
    """Compare ``metric`` of the unregularized network along its axes and along random directions of their span."""
    terms = (Term(metric, "none", 1.0, setting), Term(metric + RANDOM, "none", -1.0, setting))
    return Hypothesis(f"{metric}: none less its random basis, above 0", terms, "above")


def sefa_gain(metric: str) -> Hypothesis:
    """Return the gain in ``metric`` of SeFa's directions of a plain GAN over its axes."""
    terms = (Term(metric + SEFA, "none", 1.0, SIMPLE), Term(metric, "none", -1.0, SIMPLE))
    return Hypothesis(f"{metric}: SeFa less the axes, none, above 0", terms, "above")


STUDY = Study(
    name="latent",
    title="Orthogonal projections of the latent",
    about="An EigenGAN and a plain GAN whose layers that the latent enters are kept orthogonal in several ways, or not "
    "at all: what each direction of the latent changes, how well the directions separate the factors that made the "
    "images, along the model's own axes, along random directions of the same span, and for the plain GAN along SeFa's. "
    "Factors of generated images are read by an oracle trained on labelled sprites; images without factors have VP and "
    "activeness alone.",
    baseline="none",
    methods=METHODS,
    scales={
        "smoke": Scale(SMOKE, SMOKE_NETS, 1),
        "cpu": Scale(CPU, CPU_NETS, 3, "Small nets on sprites of 32 pixels, 450 steps of 64: early in training."),
        "decide": Scale(
            DECIDE,
            {
                EIGENGAN: Setting(DECIDE_NET, "EigenGAN, 18 dimensions to look at, sprites"),
                PORTRAITS: Setting(
                    {**DECIDE_NET, "data": {"source": "faces", "count": 50_000, "channels": 3}},
                    "EigenGAN, 18 dimensions to look at, portraits",
                ),
            },
            5,
            "10,000 steps of 64 at 32 pixels, Adam at 1e-4.",
            methods={name: {} for name in ("none", "penalty", "nog", "nog+olr")},
        ),
        "full": Scale(
            FULL,
            FULL_NETS,
            3,
            "128 pixels, 500,000 steps, for GPUs; give your images (AnimeFace, FFHQ, CelebA) with data.path=FOLDER.",
        ),
    },
    measures=(
        Measure("images", scores),
        Measure("native", native),
        Measure("sefa", along_sefa),
        Measure("projections", projections),
        Measure("walks", walks),
        Measure("cost", cost),
    ),
    claims=(
        Claim(
            "NOG and OLR make the latent directions separate better than no regulariser does",
            f"{PAPER}, abstract (read)",
            tuple(higher(metric, way, "none") for way in ("nog", "olr", "nog+olr") for metric in (VP, MIG, DCI)),
        ),
        Claim(
            "NOG and OLR separate better than the orthogonality penalty",
            f"{PAPER}, abstract (read: soft orthogonality on the weights is what they improve on)",
            tuple(higher(VP, way, "penalty", EIGENGAN) for way in ("nog", "olr")),
        ),
        Claim(
            "without a penalty, NOG and OLR keep the projections nearer to orthogonal",
            f"{PAPER}, abstract (read)",
            (
                lower(SUBSPACES, "nog", "none", EIGENGAN),
                lower(SUBSPACES, "olr", "none", EIGENGAN),
                lower(FLATNESS, "nog", "none", SIMPLE),
                lower(FLATNESS, "olr", "none", SIMPLE),
            ),
        ),
        Claim(
            "the axes of an EigenGAN have a meaning: they separate better than random directions of their span",
            "He, Kan & Shan, ICCV 2021 (EigenGAN), abstract (read)",
            tuple(beyond_random(metric, EIGENGAN) for metric in (VP, MIG, DCI)),
        ),
        Claim(
            "the singular vectors of a plain GAN's first layer separate better than its axes",
            "Shen & Zhou, CVPR 2021 (SeFa), abstract (read)",
            tuple(sefa_gain(metric) for metric in (VP, MIG, DCI)),
        ),
    ),
)
STUDIES.register("latent")(STUDY)
