"""The scoring process: reads a line of JSON per checkpoint and answers with a line of scores.

Started by ``score_process``. The first line describes the run (config, device, threads). It ends when its input is
closed, because the run has finished or was killed.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from orthogan.background import open_replies, read_messages, write_message
from orthogan.config.base import names_in
from orthogan.config.schema import Config
from orthogan.data import open_configured
from orthogan.device import memory_format
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.models.open import load_classifier, load_generator
from orthogan.training.classifier.task import open_sources
from orthogan.training.measure import measure_classifier, measure_generator

Measure = Callable[[Path, int], list[MetricResult]]


def main() -> None:
    """Answer until the input is closed."""
    replies = open_replies()
    jobs = _jobs()
    about = next(jobs)
    torch.set_num_threads(about["threads"])
    config, device = Config.model_validate(about["config"]), torch.device(about["device"])
    measure: Measure | None = None
    for job in jobs:
        try:
            measure = measure or measure_of(config, device)
            reply = {"results": [result.as_dict() for result in measure(Path(job["folder"]), job["step"])]}
        except Exception as error:  # the run continues, whatever happens here
            if not isinstance(error, UserError):
                traceback.print_exc()
            reply = {"error": str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"}
        write_message(replies, reply)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # training may need it


def measure_of(config: Config, device: torch.device) -> Measure:
    """Return a function (checkpoint folder, step) -> scores; the images are opened once.

    The networks have the same memory layout as in training, so that the numbers are equal to the last digit.
    """
    trust = names_in(config)  # a checkpoint of the run names the classes of its config
    layout: Any = torch.channels_last if config.training.channels_last else torch.contiguous_format
    if config.task == "classifier":
        train, test = open_sources(config)

        def classifier(folder: Path, step: int) -> list[MetricResult]:
            net = load_classifier(folder, device=device, trust=trust)
            net.to(memory_format=memory_format(net, channels_last=config.training.channels_last))  # pyright: ignore
            return measure_classifier(config, net, train, test, step=step, device=device)

        return classifier
    source = open_configured(config.data)

    def generator(folder: Path, step: int) -> list[MetricResult]:
        net = load_generator(folder, device=device, trust=trust).to(memory_format=layout)
        return measure_generator(config, net, source, step=step, device=device, progress=False)

    return generator


def _jobs() -> Iterator[dict[str, Any]]:
    """Yield the lines of the input, read by a separate thread, so that its end also ends a running score."""
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for job in read_messages():
            inbox.put(job)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield inbox.get()


if __name__ == "__main__":
    main()
