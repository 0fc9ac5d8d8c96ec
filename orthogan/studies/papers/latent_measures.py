"""Measures of a generator in the study of latent projections."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from orthogan.data import open_configured
from orthogan.disentanglement import disentangle
from orthogan.latent import Directions, first_layer_directions, native_directions, render, traverse
from orthogan.latent.discovery.sefa import find_layer, latent_matrix
from orthogan.layers import HouseholderProjector
from orthogan.models.families.eigengan import EigenGANGenerator
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.studies.finished import FinishedRun
from orthogan.studies.values import MeasureResult, Value

VP, ACTIVENESS, MIG, DCI, SAP, MODULARITY = "VP", "activeness", "MIG", "DCI disentanglement", "SAP", "modularity"
NAMES = {"vp": VP, "activeness": ACTIVENESS, "mig": MIG, "dci": DCI, "sap": SAP, "modularity": MODULARITY}
RANDOM, SEFA = ", random basis", ", SeFa"
SUBSPACES = "||U U^T - I||_F, largest of the subspaces"
FLATNESS = "largest over smallest singular value of the first layer"
PICTURE = "traversal.png"
LABELLED = ("sprites", "faces")  # names of sources with known factors start like this
# number of images for the scores; a run that is scored on fewer than ENOUGH fakes gets only quick scores
SAMPLES, PAIRS, ENOUGH = 5000, 2000, 1000
QUICK = {"pairs": 60, "epochs": 1}  # of VP, at scale smoke


def native(run: FinishedRun) -> MeasureResult:
    """Compute the scores along the model's own directions and along random directions of the same span."""
    net = run.net()
    return _along(run, net, native_directions(net), "", "the net's own")


def along_sefa(run: FinishedRun) -> MeasureResult:
    """Compute the same scores along the singular vectors of the first layer.

    This needs a latent that enters the network through one layer with an informative spectrum, so it returns nothing
    for an EigenGAN or a projector.
    """
    net = run.net()
    own = [part for part in net.modules() if isinstance(part, EigenGANGenerator | HouseholderProjector)]
    if own:
        return MeasureResult()
    return _along(run, net, first_layer_directions(net), SEFA, "SeFa")


def projections(run: FinishedRun) -> MeasureResult:
    """Measure how far the layers that take the latent are from orthogonal at the end."""
    net = run.net()
    if isinstance(net, EigenGANGenerator):
        with eval_mode(net):
            largest = max(numbers["orthogonality_error"] for numbers in net.subspace_report().values())
        return MeasureResult({SUBSPACES: Value(largest, "lower")})
    assert isinstance(net, Generator)
    with eval_mode(net):
        sigma = torch.linalg.svdvals(latent_matrix(find_layer(net, "auto", net.latent_dim)[1]))
    return MeasureResult({FLATNESS: Value(float(sigma[0] / sigma[-1]), "lower")})


def walks(run: FinishedRun) -> MeasureResult:
    """Draw a picture of the effect of each direction: one latent, three standard deviations each way."""
    net = run.net()
    render(traverse(net, native_directions(net), steps=7, control=2), run.folder / PICTURE)
    return MeasureResult(pictures=[PICTURE])


def _along(run: FinishedRun, net: nn.Module, directions: Directions, suffix: str, which: str) -> MeasureResult:
    """Compute every score that the data allow, named with ``suffix``, and the same along a random basis.

    ``which``: the protocol's name of the directions; a network's own have several names (axes, a projector's rows).
    """
    section, data = run.config.evaluation, run.config.data
    whole = section.samples >= ENOUGH
    labelled = whole and data.source.startswith(LABELLED)
    results = disentangle(
        net,
        list(NAMES) if labelled else ["vp", "activeness"],
        source=open_configured(data) if labelled else None,
        directions=directions,
        seeds=(0,),
        samples=min(SAMPLES, 5 * section.samples),
        options={"vp": {"pairs": PAIRS} if whole else QUICK},
        progress=False,
    )
    numbers: dict[str, Value] = {}
    for result in results:
        protocol: dict[str, Any] = {"variant": result.label, **result.protocol, "directions": which}
        # numbers for fewer factors are not comparable with those for all, so they get another column
        left_out = [*protocol.get("read too badly", ()), *protocol.get("constant in fakes", ())]
        name = NAMES[result.metric] + suffix + (f", without {' and '.join(left_out)}" if left_out else "")
        better = "" if result.metric in ("activeness", "modularity") else "higher"
        numbers[name] = Value(float(result), better, protocol)
        for control in result.controls:
            if control == RANDOM.removeprefix(", "):
                numbers[name + RANDOM] = Value(float(result.controls[control]), "", protocol)
    return MeasureResult(numbers)
