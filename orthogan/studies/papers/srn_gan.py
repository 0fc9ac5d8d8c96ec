"""SRN-GAN: does a lower stable rank of the discriminator improve the images and flatten the discriminator?"""

from __future__ import annotations

from collections.abc import Mapping

from orthogan.studies.measures import cost
from orthogan.studies.papers.gan_measures import (
    DIVERGENCE,
    FRECHET,
    STABLE_RANK,
    STEEP,
    divergence,
    histograms,
    images,
    ranks,
    steepness,
)
from orthogan.studies.papers.scales import FASHION_PATH
from orthogan.studies.study import STUDIES, Claim, Measure, Method, Scale, Setting, Study, higher, lower

PAPER = "Sanyal, Torr & Dokania, ICLR 2020"


def _srn(c: float) -> Method:
    norm = {"model.discriminator.norm.kind": "stable_rank", "model.discriminator.norm.c": c}
    return Method(norm, f"stable rank of every layer of D at most {c:g} of the possible, k = 1")


METHODS = {
    "sn": Method({"model.discriminator.norm.kind": "spectral"}, "spectral normalization of D (Miyato et al. 2018)"),
    "srn-90": _srn(0.9),
    "srn-70": _srn(0.7),
    "srn-50": _srn(0.5),
    "srn-30": _srn(0.3),
    "wgan-gp": Method(
        {
            "model.generator.kind": "wgan-gp",
            "model.discriminator.kind": "wgan-gp",
            "model.discriminator.norm.kind": "none",
            "loss.kind": "wasserstein",
            "loss.gradient_penalty.kind": "wgan-gp",
            "loss.gradient_penalty.weight": 10.0,
        },
        "Gulrajani et al. 2017: their nets (SN-GAN's blocks, a mean for the sum), at the widths of the others",
    ),
    "orthogonal": Method(
        {
            "model.discriminator.norm.kind": "none",
            "model.discriminator.penalties": [{"kind": "soft_orthogonality", "weight": 1e-2}],
        },
        "no normalization; 0.01 |Gram - I|_F^2 of every layer of D; the weight is ours, the paper's was not found",
    ),
}
# SN-GAN as its authors' code trains it, and the reduced version in configs/recipes/cpu.yaml
FULL = {
    "model.generator.channels": 256,
    "model.discriminator.channels": 128,
    "training.steps": 50_000,
    "training.batch_size": 64,
    "training.generator_batch_size": 128,
    "training.d_steps_per_g_step": 5,
    "training.schedule.kind": "linear",
    "logging.spectrum_every": 1000,
    "checkpoint.every": 2500,
    "evaluation.every": 10_000,
    "evaluation.samples": 50_000,
    "evaluation.batch_size": 250,
}
CPU = {
    "model.generator.channels": 24,
    "model.discriminator.channels": 24,
    "optimizer.generator.lr": 5e-4,
    "optimizer.discriminator.lr": 5e-4,
    "training.steps": 800,
    "training.batch_size": 64,
    "training.generator_batch_size": 64,
    "training.d_steps_per_g_step": 1,
    "training.schedule.kind": "linear",
    "training.ema.half_life": 5000,
    "logging.every": 25,
    "logging.samples_every": 0,
    "logging.spectrum_every": 100,
    "checkpoint.every": 200,
    "evaluation.every": 400,
    "evaluation.samples": 2000,
    "evaluation.reference_samples": 5000,
}
DECIDE = CPU | {
    "optimizer.generator.lr": 2e-4,
    "optimizer.discriminator.lr": 2e-4,
    "training.steps": 20_000,
    "logging.every": 100,
    "logging.spectrum_every": 1000,
    "checkpoint.every": 1000,
    "evaluation.every": 5000,
    "evaluation.samples": 5000,
    "evaluation.reference_samples": 10_000,
}
SMOKE = CPU | {
    "data.source": "sprites",
    "data.count": 128,
    "data.channels": 1,
    "model.generator.channels": 8,
    "model.generator.latent_dim": 8,
    "model.discriminator.channels": 8,
    "training.steps": 4,
    "training.batch_size": 8,
    "training.generator_batch_size": 8,
    "training.device": "cpu",
    "logging.every": 2,
    "logging.spectrum_every": 2,
    "logging.samples": 4,
    "logging.tensorboard": False,
    "checkpoint.every": 4,
    "evaluation.every": 0,
    "evaluation.samples": 48,
    "evaluation.reference_samples": 48,
    "evaluation.batch_size": 16,
}
PROJECTION = {"data.labels": True}
CELEBA = {
    "data.source": "celeba",
    "data.resolution": 64,
    "model.generator.channels": 64,
    "model.discriminator.channels": 64,
}
FASHION = {"data.source": "fashion-mnist", "data.channels": 1}


def _both(name: str, keys: Mapping[str, object], note: str) -> dict[str, Setting]:
    """Return two settings: unconditional, and with classes (conditional batch norm in G, projection in D)."""
    return {name: Setting(keys, note), f"{name}-projection": Setting({**keys, **PROJECTION}, f"{note}, with classes")}


STUDY = Study(
    name="srn-gan",
    title="Stable rank normalization of the discriminator",
    about=(
        "SN-GAN with the stable rank of every layer of its discriminator held at a share c of the possible (SRN), "
        "against spectral normalization alone, WGAN-GP and an orthogonality penalty. Everything else is equal, but "
        "for WGAN-GP, which has the nets of its own paper. A high c may never bind: look at the active share before "
        "a difference is put down to SRN. The generator that is scored is the averaged one. Distances carry the name "
        "of their extractor in the protocol; only Inception's is the FID that was published."
    ),
    baseline="sn",
    methods=METHODS,
    scales={
        "smoke": Scale(SMOKE, {"sprites-projection": Setting(PROJECTION, "sprites, with classes")}, 1, "A minute."),
        "cpu": Scale(
            CPU | FASHION | {"data.path": FASHION_PATH},
            _both("fashion-mnist", {}, "Fashion-MNIST, 32 pixels"),
            3,
            "Nets of a tenth to a fifth of the width, 800 steps: early in training.",
        ),
        "decide": Scale(
            DECIDE,
            {
                "fashion-mnist": Setting(FASHION | {"data.path": FASHION_PATH}, "Fashion-MNIST, 32 pixels"),
                "faces": Setting({"data.source": "faces", "data.count": 50_000}, "portraits, 32 pixels"),
            },
            5,
            "Nets of a tenth to a fifth of the width, 20,000 updates of each at 2e-4.",
            methods={name: {} for name in ("sn", "srn-70", "srn-50", "srn-30")},
        ),
        "full": Scale(
            FULL,
            _both("cifar10", {"data.source": "cifar10"}, "CIFAR-10")
            | _both("cifar100", {"data.source": "cifar100"}, "CIFAR-100")
            | _both("fashion-mnist", FASHION, "Fashion-MNIST, 32 pixels")
            | {"celeba": Setting(CELEBA, "CelebA, 64 pixels")},
            3,
            "The published nets and 50,000 steps; for a GPU.",
        ),
    },
    measures=[
        Measure("images", images),
        Measure("divergence", divergence, version=2),
        Measure("steepness", steepness, version=2),
        Measure("ranks", ranks),
        Measure("cost", cost),
    ],
    overlays={"empirical Lipschitz constants of D": histograms},
    claims=[
        Claim(
            "SRN on the discriminator improves FID over SN",
            f"{PAPER}, abstract (read); the figure 19.83 from paperswithcode, 21.7 from Miyato et al. 2018",
            (lower(FRECHET, "srn-70", "sn"),),
            published="19.83 (c = 0.7) and 21.7 (SN-GAN) on CIFAR-10",
        ),
        Claim(
            "SRN improves the neural divergence over SN",
            f"{PAPER}, abstract (read); figures not found",
            (lower(DIVERGENCE, "srn-70", "sn"),),
        ),
        Claim(
            "SRN discriminators have a lower empirical Lipschitz constant, the lower the smaller c",
            f"{PAPER}, abstract (read) for the first part; the order in c is from memory",
            (lower(STEEP, "srn-70", "sn"), lower(STEEP, "srn-50", "srn-70"), lower(STEEP, "srn-30", "srn-50")),
        ),
        Claim(
            "The stable rank of the discriminator falls with c",
            f"{PAPER}, the definition of SRN; c = 0.7 hardly binds at the start of training (our own check)",
            (lower(STABLE_RANK, "srn-70", "sn"), lower(STABLE_RANK, "srn-30", "srn-70")),
        ),
        Claim(
            "SN-GAN makes better images than WGAN-GP",
            "Miyato et al. 2018 (the WGAN-GP of a plain CNN)",
            (higher(FRECHET, "wgan-gp", "sn"),),
            published="21.7 and 40.1 on CIFAR-10",
        ),
    ],
)
STUDIES.register("srn-gan")(STUDY)
