"""Every constraint and gradient rule under DistributedDataParallel: two processes stay one, and equal one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.two_processes import both_finish

SCRIPT = """
import os, sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from orthogan import layers, penalties, weights
from orthogan.gradients import CayleyRetraction, NearestOrthogonalGradient, OptimalLearningRate

dist.init_process_group("gloo")
rank = dist.get_rank()
CASES = [("stable_rank", {"c": 0.3, "k": 0}), ("stable_rank", {"c": 0.3, "k": 2})]
CASES += [("rotation", {"method": m}) for m in ("qr", "householder", "polar", "cayley", "ogd", "relaxed")]
CASES += [("rotation", {"method": "qr", "sample": 0.5})]
CASES += [("orthogonal", {"method": m}) for m in ("qr", "householder", "cayley", "bjorck")]
CASES += [("none", {"rule": rule}) for rule in ("nog", "muon", "olr", "penalty", "skew", "white", "pooled")]

def build(kind, options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    options = dict(options)
    rule = options.pop("rule", None)
    if rule == "skew":
        net[0].padding = (1, 1)
        weights.apply(net, "skew_orthogonal")
        net[3] = nn.Linear(144, 3)
    if rule == "white":
        net.insert(1, layers.DecorrelatedBatchNorm2d(4))
    if rule == "pooled":
        net = nn.Sequential(net[0], layers.CovariancePooling("newton_schulz"), nn.Linear(10, 3))
    weights.apply(net, kind, **options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    if rule == "nog":
        NearestOrthogonalGradient(optimizer, net, scale="frobenius")
    if rule == "muon":
        NearestOrthogonalGradient(optimizer, net, layers="conv", momentum=0.9)
    if rule == "olr":
        OptimalLearningRate(optimizer, net, form="matrix")
    if options.get("method") == "ogd":
        CayleyRetraction(optimizer, net)
    penalty = penalties.Penalty(net, "soft_orthogonality", 0.1) if rule == "penalty" else None
    return net, optimizer, penalty

def train(model, net, optimizer, penalty, options, share):
    for step in range(4):
        rng = torch.Generator().manual_seed(step)
        x, y = (torch.randn(8, 1, 6, 6, generator=rng)[share] for _ in range(2))
        if "sample" in options:
            weights.resample(net, step, optimizers=[optimizer])
        optimizer.zero_grad()
        loss = model(x).square().mean() - model(y).mean()
        if penalty is not None:
            loss = loss + penalty()
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])

for kind, options in CASES:
    net, optimizer, penalty = build(kind, options)
    two = train(DDP(net), net, optimizer, penalty, options, slice(4 * rank, 4 * rank + 4))
    both = [torch.empty_like(two) for _ in range(2)]
    dist.all_gather(both, two)
    assert torch.equal(*both), (kind, options)
    net, optimizer, penalty = build(kind, options)
    one = train(net, net, optimizer, penalty, options, slice(None))
    assert torch.allclose(one, two, atol=2e-4), (kind, options, float((one - two).abs().max()))
"""


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    both_finish(SCRIPT, tmp_path)
