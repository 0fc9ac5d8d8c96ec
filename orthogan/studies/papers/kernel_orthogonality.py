"""Penalties that push kernels toward orthogonality, in networks of growing depth (Wu et al. 2023, arXiv 2306.09939).

The paper's text was not available, only its abstract and reviews; the disentangled norm here is a reconstruction, and
its coefficient is our choice. Coefficients and schedules of the others are those of the reference.
"""

from __future__ import annotations

from typing import Any

from orthogan.evaluation.robustness.attacks import need_art
from orthogan.penalties.schedule import SRIP_EPOCHS, SRIP_SCHEDULE, SRIP_WEIGHT
from orthogan.studies import measures
from orthogan.studies.measures import CORRUPTED, FINAL_ERROR, KERNEL, OPERATOR
from orthogan.studies.papers.scales import FASHION_CPU, FASHION_DECIDE, SMOKE, learning_rates
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
    lower,
)

C = "model.classifier"
# of 200 epochs, for SO and DSO (configs of the Evenly-Dispersing repository): 1e-1, then 1e-3, 1e-4, 1e-6, 0
FADING = [[0.0, 1.0], [0.1, 1e-2], [0.25, 1e-3], [0.35, 1e-5], [0.6, 0.0]]
SHALLOW, DEEP, WIDE, WIDE_DEEP = "resnet-shallow", "resnet-deep", "wrn-shallow", "wrn-deep"
DN_WEIGHT, OCNN_WEIGHT = 1e-2, 1e-3


def penalised(kind: str, weight: float, schedule: Any = None, **options: Any) -> Keys:
    """Return the keys of one penalty on every convolution, including the stem and the 1x1 convolutions."""
    penalty: dict[str, Any] = {"kind": kind, "weight": weight, "layers": ["conv"], **options}
    return {f"{C}.penalties": [penalty | ({"schedule": schedule} if schedule else {})]}


METHODS = {
    "vanilla": Method({}, "weight decay alone."),
    "so": Method(penalised("soft_orthogonality", 1e-1, FADING), "soft orthogonality."),
    "dso": Method(penalised("double_soft_orthogonality", 1e-1, FADING), "double soft orthogonality."),
    "mc": Method(penalised("mutual_coherence", 1e-1, FADING), "mutual coherence; coefficient and schedule as of SO."),
    "srip": Method(
        penalised("srip", SRIP_WEIGHT, [list(point) for point in SRIP_SCHEDULE.stretched(1 / SRIP_EPOCHS).points]),
        "spectral restricted isometry, with the authors' schedule.",
    ),
    "ocnn": Method(
        penalised("conv_orthogonality", OCNN_WEIGHT),
        "orthogonal convolutions; squared and less its floor, so the coefficient is ours.",
    ),
    "dn-strict": Method(penalised("disentangled_norm", DN_WEIGHT), "disentangled norm, all correlations."),
    "dn-relaxed": Method(
        penalised("disentangled_norm", DN_WEIGHT, relaxed=True),
        "disentangled norm, the largest correlations free in layers of more filters than dimensions; in a net that has "
        "none this is dn-strict.",
    ),
    "dn-relaxed-75": Method(
        penalised("disentangled_norm", DN_WEIGHT, relaxed=True, transition=0.75),
        "the same in every layer, as if it had three quarters of its dimensions: the paper relaxes all layers, by a "
        "dimension whose formula could not be read, so the share is ours.",
    ),
}


def fading_gain() -> Hypothesis:
    """Return the gain of strict orthogonality in the shallow net minus its gain in the deep one (errors: below 0)."""
    terms = (
        Term(FINAL_ERROR, "dn-strict", 1.0, SHALLOW),
        Term(FINAL_ERROR, "vanilla", -1.0, SHALLOW),
        Term(FINAL_ERROR, "dn-strict", -1.0, DEEP),
        Term(FINAL_ERROR, "vanilla", 1.0, DEEP),
    )
    return Hypothesis(
        f"{FINAL_ERROR}: (dn-strict less vanilla, shallow) less (the same, deep), below 0", terms, "below"
    )


CLAIMS = (
    Claim(
        "strict orthogonality helps shallow nets",
        "reviews of the paper (read)",
        (lower(FINAL_ERROR, "dn-strict", "vanilla", SHALLOW), lower(FINAL_ERROR, "dn-strict", "vanilla", WIDE)),
    ),
    Claim("its gain drops with depth", "reviews of the paper (read)", (fading_gain(),)),
    Claim(
        "relaxed orthogonality helps deep nets, more than the strict one",
        "abstract and reviews of the paper (read)",
        tuple(
            lower(FINAL_ERROR, "dn-relaxed-75", than, deep)
            for deep in (DEEP, WIDE_DEEP)
            for than in ("vanilla", "dn-strict")
        ),
    ),
    Claim(
        "the disentangled norm comes nearer to orthogonality than the Frobenius norm (SO)",
        "abstract of the paper (read)",
        (lower(KERNEL, "dn-strict", "so"),),
    ),
    Claim(
        "nets trained with the disentangled norm are more robust",
        "abstract of the paper (read); to what was not read",
        tuple(
            lower(number, method, "vanilla")
            for number in (CORRUPTED, "error under pgd, 2/255 [%]")
            for method in ("dn-strict", "dn-relaxed-75")
        ),
    ),
    Claim(
        "SRIP classifies better than the plain net and than SO",
        "Bansal et al. 2018: README of the authors for the first, from memory for the second",
        (lower(FINAL_ERROR, "srip", "vanilla"), lower(FINAL_ERROR, "srip", "so")),
    ),
    Claim(
        "orthogonal convolutions (OCNN) classify better than SO, and are nearer to orthogonal as maps",
        "Wang et al. 2020, from memory",
        (lower(FINAL_ERROR, "ocnn", "so"), lower(OPERATOR, "ocnn", "so")),
    ),
)


def nets(sizes: dict[str, tuple[str, int]]) -> dict[str, Setting]:
    """Turn setting -> (kind, width of the stem) into settings."""
    return {
        name: Setting({f"{C}.kind": kind, f"{C}.channels": width}, f"{kind}, width {width}")
        for name, (kind, width) in sizes.items()
    }


CPU_KEYS = {
    **FASHION_CPU,
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"steps": 500, "batch_size": 128, "schedule": {"kind": "step", "milestones": [0.3, 0.6, 0.8]}},
    "evaluation": {"every": 250, "samples": 5000, "batch_size": 500},
    "checkpoint": {"every": 250},
    "logging": {"every": 20, "spectrum_every": 250, "tensorboard": False},
}
DECIDE_KEYS = {
    **FASHION_DECIDE,
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "checkpoint": {"every": 940},
}
FULL_KEYS = {
    "task": "classifier",
    "data": {"source": "cifar100", "resolution": 32, "channels": 3, "crop": 4, "flip": True},
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {
        "steps": 78_200,
        "batch_size": 128,
        "schedule": {"kind": "step", "milestones": [0.3, 0.6, 0.8], "factor": 0.2},
    },
    "evaluation": {"every": 3910, "samples": 10_000, "batch_size": 500},
    "checkpoint": {"every": 3910},
    "logging": {"every": 100, "spectrum_every": 3910, "tensorboard": False},
}

STUDY = Study(
    name="kernel-orthogonality",
    title="Kernel orthogonality and depth",
    about="Penalties on every convolution, the stem and the 1x1 ones included, in residual and wide residual nets of "
    "several depths: error, and how near to orthogonal the layers come. All have the same weight decay: nothing but "
    "the penalty differs. Attacks are on the first "
    "500 of a random order of the test images: FGSM, and PGD of 10 steps from one random start.",
    baseline="vanilla",
    methods=METHODS,
    scales={
        "smoke": Scale({**SMOKE, "training.batch_size": 8}, nets({WIDE: ("wrn-10-1", 4)}), seeds=1),
        "cpu": Scale(
            CPU_KEYS,
            nets({SHALLOW: ("resnet20", 8), DEEP: ("resnet56", 8), WIDE: ("wrn-10-2", 8), WIDE_DEEP: ("wrn-28-2", 8)}),
            note="Narrow nets, Fashion-MNIST at 16 pixels, 500 steps of 128 images.",
        ),
        "decide": Scale(
            DECIDE_KEYS,
            nets({SHALLOW: ("resnet20", 8), WIDE: ("wrn-10-2", 8)}),
            seeds=5,
            note="SRIP and SO against the plain net: narrow nets, Fashion-MNIST at 16 pixels, 20 epochs. The learning "
            "rate of each is the best of three on a tenth of the training images, in runs of a third of the length.",
            methods={"vanilla": {}, "so": {}, "srip": {}},
            searches=[learning_rates((name,), (0.03, 0.1, 0.3)) for name in ("vanilla", "so", "srip")],
        ),
        "full": Scale(
            FULL_KEYS,
            nets(
                {
                    SHALLOW: ("resnet20", 16),
                    "resnet-middle": ("resnet56", 16),
                    DEEP: ("resnet110", 16),
                    WIDE: ("wrn-16-10", 16),
                    WIDE_DEEP: ("wrn-28-10", 16),
                }
            ),
            note="CIFAR-100 for 200 epochs, as Bansal et al. train WRN-28-10 but without dropout.",
        ),
    },
    measures=(
        Measure("classification", measures.classification, version=2),
        Measure("cost", measures.cost),
        Measure("orthogonality", measures.orthogonality),
        Measure("robustness", measures.robustness),
    ),
    claims=CLAIMS,
    needs=(need_art,),
    imports=("art.attacks.evasion", "art.estimators.classification"),
)
STUDIES.register("kernel-orthogonality")(STUDY)
