"""One run of ``benchmarks.scale``: ``python -m benchmarks.scale_run JOB ANSWER``, also under torchrun.

JOB is JSON with ``kind``: ``train`` times whole steps of a GAN, ``reduce`` the mean of gradients over the processes.
The first process writes the result to the file ANSWER as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orthogan.config.files import load_config
from orthogan.data import ArraySource
from orthogan.training.config import TrainingConfig
from orthogan.training.gan.task import GanTask
from orthogan.training.loop import average_gradients, update
from orthogan.training.precision import make_accelerator
from orthogan.training.watch import FiniteWatch

IMAGES = 2048  # images in the data set, which is on the device
WARM_UP = 2


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of whole steps, images that D sees per step, and peak memory of this process [MiB]."""
    before, point = _peak(), job["point"]
    config = load_config(
        None,
        [
            f"data.resolution={point['resolution']}",
            f"model.discriminator.channels={point['width']}",
            f"model.generator.channels={2 * point['width']}",
            f"training.batch_size={point['batch']}",
            f"training.device={job['device']}",
            f"training.compile={job['compile']}",
            f"out={job['folder']}",
        ],
    )
    side = config.data.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, config.data.channels, side, side), np.uint8)
    accelerator, watch = make_accelerator(config.training), FiniteWatch()
    task = GanTask(config, ArraySource("noise", pixels), accelerator)
    seconds: list[float] = []
    for step in range(WARM_UP + job["steps"]):
        _wait(accelerator.device)
        start = time.perf_counter()
        for phase in task.phases(step):
            update(phase, task, accelerator, watch, step)
        for name, average in task.averages.items():
            images = (step + 1) * task.images_per_step
            average.update(task.nets[name], images, task.images_per_step)
        task.finish_step(step)
        _wait(accelerator.device)
        seconds.append(time.perf_counter() - start)
    cuda = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else _peak()
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in task.nets.items()}
    return {
        "seconds": seconds[WARM_UP:],
        "images": task.images_per_step,
        "peak MiB": peak,
        "before MiB": 0.0 if cuda else before,
        "parameters": sizes,
        "precision": accelerator.mixed_precision,
    }


def reduce(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds for averaging gradients of each size (float32) over the processes, several times each."""
    accelerator = make_accelerator(TrainingConfig(device=job["device"], precision="fp32"))
    found: dict[str, Any] = {"bytes": [], "seconds": [], "processes": accelerator.num_processes}
    for number in job["numbers"]:
        net = nn.ParameterList([nn.Parameter(torch.zeros(number))])
        net[0].grad = torch.ones(number)
        seconds: list[float] = []
        for _ in range(15):
            accelerator.wait_for_everyone()
            start = time.perf_counter()
            average_gradients(net, accelerator)
            seconds.append(time.perf_counter() - start)
        found["bytes"].append(4 * number)
        found["seconds"].append(seconds[5:])
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak() -> float:
    """The peak memory of this process [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    """Run the job of the command line; the first process writes the answer."""
    job, answer = json.loads(sys.argv[1]), Path(sys.argv[2])
    found = {"train": train, "reduce": reduce}[job["kind"]](job)
    if int(os.environ.get("RANK", "0")) == 0:
        answer.write_text(json.dumps(found))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort the normal exit of the interpreter


if __name__ == "__main__":
    main()
