"""Orthogonal over-parameterized training (Liu et al., CVPR 2021, arXiv 2004.04690) against the plain net and MHE.

The reference lists what the paper compares and what could be read: the authors' code was available, the body and
tables of the paper were not. So the claims below are from its abstract, or directions of tables known from memory.
"""

from __future__ import annotations

from typing import Any

from orthogan.studies import measures
from orthogan.studies.measures import ENERGY, ENERGY_CHANGE, FINAL_ERROR, PARAMETERS
from orthogan.studies.papers.scales import FASHION_CPU, FASHION_DECIDE, SMOKE, learning_rates
from orthogan.studies.study import STUDIES, Claim, Keys, Measure, Method, Scale, Setting, Study, lower, under

C = "model.classifier"
BUT_THE_LAST = ["!last"]  # the classifier itself is trained as usual, as in the paper
EXACT = ("opt-qr", "opt-householder", "opt-polar", "opt-cayley", "opt-ogd")
FIXED, MEMORY = 1e-4, "from memory (tables of the paper, not read)"  # changes of the energy below this count as none


def rotated(**rotation: Any) -> Keys:
    """Return the keys of a rotation of the fixed neurons of every layer except the last."""
    return {f"{C}.norm": {"kind": "rotation", "layers": BUT_THE_LAST, **rotation}}


def learned(transform: str) -> Method:
    """Return a method whose neurons are trained together with their transformation."""

    def keys(setting: str) -> Keys:
        options = {"transform": transform, "depth": 9 if setting == "cnn9" else 6}
        return {f"{C}.kind": "learned-neurons", f"{C}.options": options}

    kind = {"qr": "orthogonal (QR)", "free": "unconstrained"}[transform]
    return Method(keys, f"ablation: learned neurons, {kind} transformation.")


def energy_penalty(half_space: bool) -> Keys:
    """Return MHE with the authors' weights: 1 on the hidden layers, 10 on the classifier; mean over pairs, s = 2."""
    hidden = {"kind": "hyperspherical_energy", "weight": 1.0, "layers": BUT_THE_LAST}
    last = {"kind": "hyperspherical_energy", "weight": 10.0, "layers": ["last"], "s": 2}
    return {f"{C}.penalties": [hidden | {"s": 2, "half_space": half_space}, last]}


METHODS = {
    "baseline": Method({}, "the plain net."),
    "mhe": Method(energy_penalty(False), "minimum hyperspherical energy."),
    "mhe-half": Method(energy_penalty(True), "the same in half space, on hidden layers."),
    "opt-qr": Method(rotated(method="qr"), "the paper's GS and HR up to signs."),
    "opt-gram-schmidt": Method(rotated(method="gram_schmidt"), "the same map, made row by row as in the paper."),
    "opt-householder": Method(rotated(method="householder"), "learned reflections."),
    "opt-polar": Method(rotated(method="polar"), "the paper's LS (Löwdin)."),
    "opt-newton-schulz": Method(rotated(method="polar_newton_schulz"), "Löwdin by products."),
    "opt-cayley": Method(rotated(method="cayley"), "the paper's CP."),
    "opt-exp": Method(rotated(method="matrix_exp"), "not in the paper."),
    "opt-ogd": Method(
        rotated(method="ogd"), "Cayley retraction at a fifth of the learning rate, as the authors have it."
    ),
    "opt-relaxed": Method(rotated(method="relaxed", relaxation=0.1), "the paper's OR: a penalty, not exact."),
    "s-opt-4": Method(rotated(method="qr", sample=0.25), "stochastic OPT, p = d/4, in the first layer too."),
    "s-opt-8": Method(rotated(method="qr", sample=0.125), "p = d/8."),
    "s-opt-16": Method(rotated(method="qr", sample=0.0625), "p = d/16."),
    "opt-refined": Method(rotated(method="qr", refine=200), "energy of the fixed neurons lowered first, then QR."),
    "fixed-free": Method(
        rotated(method="relaxed", relaxation=0.0), "ablation: fixed neurons, unconstrained transformation."
    ),
    "learned-orthogonal": learned("qr"),
    "learned-free": learned("free"),
}

CLAIMS = (
    Claim(
        "OPT classifies better than the plain net, by each way of making the rotation",
        "abstract (read): OPT improves generalization on various tasks; the single ways " + MEMORY,
        tuple(lower(FINAL_ERROR, method, "baseline") for method in EXACT),
    ),
    Claim(
        "OPT classifies better than MHE, also in half space",
        MEMORY,
        tuple(lower(FINAL_ERROR, "opt-qr", method) for method in ("mhe", "mhe-half")),
    ),
    Claim(
        "OPT leaves the hyperspherical energy as it was at the start",
        "follows from W W^T = W0 W0^T; abstract (read): the energy is provably minimal",
        tuple(under(ENERGY_CHANGE, method, FIXED) for method in (*EXACT, "s-opt-4")),
    ),
    Claim(
        "the energy under OPT is below that of the plain net after training",
        "abstract (read): random neurons provably have a low energy, and training keeps it",
        (lower(ENERGY, "opt-qr", "baseline"), lower(ENERGY, "opt-refined", "opt-qr")),
    ),
    Claim(
        "stochastic OPT trains fewer parameters than the plain net, and still classifies better",
        "numbers of parameters counted from the authors' code; the error " + MEMORY,
        (
            lower(PARAMETERS, "s-opt-4", "baseline"),
            lower(PARAMETERS, "s-opt-16", "baseline"),
            lower(FINAL_ERROR, "s-opt-4", "baseline"),
        ),
    ),
    Claim(
        "both parts matter: fixed neurons with an orthogonal transformation beat the three other combinations",
        "ablation, " + MEMORY,
        tuple(lower(FINAL_ERROR, "opt-qr", other) for other in ("fixed-free", "learned-orthogonal", "learned-free")),
    ),
)

SMOKE_KEYS = {
    **SMOKE,
    f"{C}.channels": 8,
    f"{C}.norm.rotation.episode": 4,
    f"{C}.norm.rotation.lr": 0.002,
    "optimizer.classifier.lr": 0.01,
}
CPU_KEYS = {
    **FASHION_CPU,
    f"{C}.channels": 32,
    f"{C}.norm.rotation.episode": 60,
    f"{C}.norm.rotation.lr": 0.006,
    "loss.label_smoothing": 0.01,
    "optimizer.classifier": {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4},
    "training.schedule": {"kind": "step", "milestones": [0.4, 0.667, 0.867]},
}
DECIDE_KEYS = {
    **FASHION_DECIDE,
    f"{C}.channels": 32,
    "loss.label_smoothing": 0.01,
    "optimizer.classifier": {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4},
}
# stochastic OPT: 100 episodes of 375 steps, four times as long as the others, as in the authors' code
DECIDE_METHODS: dict[str, Keys] = {
    "baseline": {},
    "mhe": {},
    "opt-qr": {},
    "opt-householder": {},
    "opt-polar": {},
    "opt-cayley": {},
    "opt-ogd": {},
    "s-opt-4": {"training.steps": 37_500, f"{C}.norm.episode": 375},
}
SEARCHES = (
    learning_rates(("baseline", "mhe"), (0.01, 0.03, 0.1)),
    learning_rates(("opt-qr", "opt-householder", "opt-polar", "opt-cayley"), (0.01, 0.03, 0.1, 0.3)),
    learning_rates(("opt-ogd",), (0.002, 0.006, 0.02), f"{C}.norm.lr"),
    learning_rates(("s-opt-4",), (0.03, 0.1, 0.3), steps=12_500),
)
FULL_KEYS = {
    "task": "classifier",
    "data": {"source": "cifar100", "resolution": 32, "channels": 3, "crop": 4, "flip": True},
    f"{C}.channels": 64,
    f"{C}.norm.rotation.episode": 750,
    f"{C}.norm.rotation.lr": 0.02,
    "loss.label_smoothing": 0.01,
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {
        "steps": 75_000,
        "batch_size": 128,
        "schedule": {"kind": "step", "milestones": [0.4, 0.6667, 0.8667]},
    },
    "evaluation": {"every": 2500, "at_start": True, "samples": 10_000, "batch_size": 500},
    "checkpoint": {"every": 7500, "keep": 100},
    "logging.tensorboard": False,
}
NETS = {"cnn6": Setting({f"{C}.kind": "cnn6"}), "cnn9": Setting({f"{C}.kind": "cnn9"})}

STUDY = Study(
    name="opt",
    title="Orthogonal over-parameterized training",
    about="Error, energy of the neurons over training, parameters, memory and time of a step: the plain net, MHE, "
    "every way of making OPT's rotation, stochastic OPT, refinement, and the ablation of fixed neurons and "
    "orthogonality. The rotation is on every layer but the classifier and starts at the identity (the authors start "
    "most ways at a random one).",
    baseline="baseline",
    methods=METHODS,
    scales={
        "smoke": Scale(SMOKE_KEYS, {"cnn6": NETS["cnn6"]}, seeds=1),
        "cpu": Scale(
            CPU_KEYS,
            {"cnn6": NETS["cnn6"]},
            note="CNN-6 at half its width, Fashion-MNIST at 16 pixels, 800 steps of 128 images. SGD from 0.03: the "
            "best for the plain net of 0.01, 0.03 and 0.1, on a seed that is not in the table; rotations from 0.006, "
            "the authors' fifth.",
        ),
        "decide": Scale(
            DECIDE_KEYS,
            {"cnn6": NETS["cnn6"]},
            seeds=5,
            note="CNN-6 at half its width, Fashion-MNIST at 16 pixels, 20 epochs; stochastic OPT trains four times as "
            "long, as in the authors' code. The learning rate of each family is the best of three or four on a "
            "tenth of the training images, in runs of a third of the length.",
            methods=DECIDE_METHODS,
            searches=SEARCHES,
        ),
        "full": Scale(
            FULL_KEYS,
            NETS,
            note="The authors' setting of CNN-6 on CIFAR-100; stochastic OPT trains as long as the others here, a "
            "quarter of the authors' steps.",
        ),
    },
    measures=(
        Measure("classification", measures.classification, version=2),
        Measure("cost", measures.cost),
        Measure("energy", measures.energy),
    ),
    claims=CLAIMS,
)
STUDIES.register("opt")(STUDY)
