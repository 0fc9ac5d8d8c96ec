"""What each command does with its arguments, in terms of the public functions."""

from __future__ import annotations

import importlib.util
import json
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthogan.config.checks import NEEDS_PATH
from orthogan.config.files import dump, load_config, own_names
from orthogan.errors import CannotWrite, UserError, install
from orthogan.io.read import check_regular, user_path
from orthogan.io.yaml_text import parse_yaml
from orthogan.models.shipped import find_shipped, no_such

if TYPE_CHECKING:
    import torch

    from orthogan.config.schema import Config
    from orthogan.data import ImageSource
    from orthogan.latent import Directions
    from orthogan.models.protocol import Generator
    from orthogan.models.subject import LoadedGenerator

# Torch and what builds on it take seconds to import: each command imports what it needs after its files are found.
BATCH = 64  # images at a time when drawing


def config(arguments: Namespace) -> None:
    """Print the resolved config."""
    settings = load_config(arguments.config, arguments.overrides, trust=True)  # it is only printed
    print(dump(settings, explain=arguments.explain), end="")


def train(arguments: Namespace) -> None:
    """Train, or only try."""
    settings = load_config(arguments.config, arguments.overrides, trust=arguments.trust)
    path = settings.data.path
    if path and settings.data.source in NEEDS_PATH and not os.path.lexists(user_path(path)):
        raise UserError(f"data.path: {path}: there is no such file or folder")
    from accelerate.state import PartialState

    from orthogan import training

    if arguments.dry_run:
        for name, value in training.dry_run(
            settings, allow_config_change=arguments.allow_config_change, trust=arguments.trust
        ).items():
            print(f"{name:>16}: {value:,}" if isinstance(value, int) else f"{name:>16}: {value}")
        return
    run = training.train(settings, allow_config_change=arguments.allow_config_change, trust=arguments.trust)
    if PartialState().is_main_process:
        _report(run, settings)


def _report(run: Path, settings: Config) -> None:
    """What a finished run holds, and how its score moved."""
    from orthogan.io import checkpoint
    from orthogan.training.resume import METRICS, own_scores

    print(f"{run}: complete, {settings.training.steps} steps")
    scores = own_scores(run / METRICS, settings.training.steps)
    if scores := [(step, score) for step, score in scores if score.metric == settings.evaluation.best]:
        form = ".2%" if settings.task == "classifier" else ".2f"
        first, last = (f"{scores[i][1].value:{form}} (step {scores[i][0]})" for i in (0, -1))
        print(f"{scores[-1][1].label}: {first} -> {last}")
    if settings.task == "classifier":
        best = checkpoint.best_checkpoint(run)
        print(f"best checkpoint: {best}" if best is not None else f"checkpoints: {run / checkpoint.FOLDER}")
        return
    names = ("reals.png", "fakes_init.png", *(file.name for file in sorted(run.glob("fakes-*.png"))[-1:]))
    print(f"pictures: {', '.join(str(run / name) for name in names if (run / name).is_file())}")


def sample(arguments: Namespace) -> None:
    """Draw images."""
    _find(arguments)
    from orthogan.latent import parse_classes, parse_seeds, sample_images, save_samples
    from orthogan.latent.samples import check_place

    seeds = parse_seeds(arguments.seeds)
    check_place(arguments.out, len(seeds))
    subject, net, device = _open(arguments.subject, arguments)
    classes = None
    if arguments.classes is not None:
        classes = parse_classes(arguments.classes, net.num_classes, subject.class_names)
    images = sample_images(net, seeds, classes, arguments.truncation, batch_size=BATCH, device=device)
    written = save_samples(images, arguments.out, class_names=subject.class_names)
    print(f"{len(images.seeds)} images of {subject.name}: {written[0] if len(written) == 1 else arguments.out}")


def traverse(arguments: Namespace) -> None:
    """Show what each direction does."""
    _find(arguments)
    from orthogan.latent import parse_seeds, render
    from orthogan.latent import traverse as walk
    from orthogan.latent.render import check_suffix
    from orthogan.latent.render.contact_sheet import contact_sheet

    seeds = parse_seeds(arguments.seeds) if arguments.seeds else []
    check_suffix(arguments.out, heatmap=arguments.heatmap, sheet=bool(seeds))
    subject, net, device = _open(arguments.subject, arguments)
    directions = _directions(arguments, net)
    if arguments.save_directions:
        directions.save(arguments.save_directions)
        print(f"{len(directions)} directions: {arguments.save_directions}")
    options: dict[str, Any] = {
        "dims": "all" if arguments.dims == "all" else parse_seeds(arguments.dims, "dims"),
        "range": arguments.range,
        "steps": arguments.steps,
        "y": _label(arguments, subject, net),
        "truncation": arguments.truncation,
        "centred": arguments.centred,
        "walk": arguments.walk,
        "control": arguments.control,
        "batch_size": BATCH,
        "device": device,
    }
    if seeds:
        if arguments.base != "sample":
            raise UserError(f"--base {arguments.base}: a contact sheet starts at the samples of --seeds; leave it out")
        walked = contact_sheet(net, directions, seeds=seeds, **options)
    else:
        walked = walk(net, directions, seed=arguments.seed, base=arguments.base, **options)
    made = render(walked, arguments.out, heatmap=arguments.heatmap)
    print(
        f"{len(options['dims']) if options['dims'] != 'all' else len(directions)} directions of {subject.name}: {made}"
    )


def _directions(arguments: Namespace, net: Generator) -> Directions:
    """Those of --directions, else of --method; moved in --layers alone, where that is given."""
    from orthogan.latent import Directions, parse_layers
    from orthogan.latent.discovery import find_directions

    if arguments.directions:
        directions = Directions.load(arguments.directions)
    else:
        directions = find_directions(net, arguments.method)
    return replace(directions, layers=parse_layers(arguments.layers)) if arguments.layers else directions


def explore(arguments: Namespace) -> None:
    """Serve the live page until Ctrl-C."""
    _find(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"the live page needs gradio: {install('explore')}")
    from orthogan.cli.evaluate import find_run
    from orthogan.latent.explorer.page import explore as serve  # gradio takes seconds to import

    subject, net, _ = _open(arguments.subject, arguments)
    serve(
        net,
        _directions(arguments, net),
        class_names=subject.class_names,
        title=f"orthogan: {(find_run(Path(subject.name)) or Path(subject.name)).name}",
        host=arguments.host,
        port=arguments.port,
        open_browser=arguments.open,
    )


def disentangle(arguments: Namespace) -> None:
    """Measure the directions of generators."""
    _find(arguments)
    options = _options(arguments.set)
    from orthogan import disentanglement as measures
    from orthogan.cli.evaluate import find_run
    from orthogan.evaluation import append_jsonl
    from orthogan.latent import parse_seeds

    metrics = [name.strip().lower() for name in arguments.metrics.split(",")]
    given = measures.read_options(metrics, options)
    runs, unwritten, alone = [], [], len(arguments.subject) == 1
    for path in arguments.subject:
        subject, net, _ = _open(path, arguments)
        try:
            results = measures.disentangle(
                net,
                metrics,
                source=None if arguments.data is None else _labelled(arguments.data, net),
                directions=_directions(arguments, net),
                seeds=parse_seeds(arguments.seeds),
                samples=arguments.samples,
                controls=not arguments.no_controls,
                y=_label(arguments, subject, net),
                options=given,
                info={"subject": path},
            )
        except (ValueError, TypeError) as error:  # what a metric refuses
            raise UserError(f"{path}: {error}") from error
        runs.append(results)
        if arguments.json:
            print(*(json.dumps(result.as_dict(), allow_nan=False) for result in results), sep="\n", flush=True)
        else:
            lines = [path, *("  " + result.one_line() for result in results)]
            print(measures.table(results) if alone else "\n".join(lines), flush=True)
        run = find_run(Path(path))
        try:
            if run is not None:
                append_jsonl(run / "disentanglement.jsonl", results)
        except CannotWrite as error:  # the other subjects are still to be measured
            unwritten.append(error)
    try:
        over = measures.across(runs) if len(runs) > 1 else []
    except ValueError as error:
        raise UserError(str(error)) from error
    if over and arguments.json:
        print(*(json.dumps(result.as_dict(), allow_nan=False) for result in over), sep="\n")
    elif over:
        print("\n".join([f"over {len(runs)} runs", *map(str, over)]))
    if unwritten:
        raise unwritten[0]


def _options(texts: list[str]) -> dict[str, dict[str, Any]]:
    """METRIC.KEY=VALUE as {METRIC: {KEY: VALUE}}."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        metric, dot, key = name.partition(".")
        if not (metric and dot and key and sign):
            raise UserError(f"--set {text}: write METRIC.KEY=VALUE, for example vp.protocol=published")
        found.setdefault(metric, {})[key] = parse_yaml(value, f"--set {text}")
    return found


def _labelled(name: str, net: Generator) -> ImageSource:
    """The images with factors that --data names, as large as those of the generator."""
    from orthogan.data import open_configured, open_source
    from orthogan.models.generate import image_size

    if name.endswith((".yaml", ".yml")):
        return open_configured(load_config(name, trust=True).data)  # its nets are not built
    channels, side = image_size(net)
    return open_source(name, resolution=side, channels=channels)


def discover(arguments: Namespace) -> None:
    """Find directions and score them."""
    if not arguments.out.endswith(".safetensors"):
        raise UserError(f"--out {arguments.out}: a Directions file ends in .safetensors")
    _find(arguments)
    from orthogan.latent import parse_layers
    from orthogan.latent.discovery import discover as find_directions

    subject, net, _ = _open(arguments.subject, arguments)
    options = {name: getattr(arguments, name) for name in ("layer", "components", "samples", "steps")}
    found = find_directions(
        net,
        arguments.method,
        threshold=arguments.threshold,
        with_rca=arguments.rca,
        y=_label(arguments, subject, net),
        seed=arguments.seed,
        space=arguments.space,
        layers=parse_layers(arguments.layers) if arguments.layers else (),
        **{name: value for name, value in options.items() if value is not None},
    )
    print(found.table())
    layer = f" of layer {found.directions.layer}" if found.directions.layer else ""
    print(f"{len(found.directions)} directions{layer} of {subject.name}: {found.directions.save(arguments.out)}")


def spectrum(arguments: Namespace) -> None:
    """Audit the weights of a net."""
    _find(arguments)
    from orthogan.evaluation.spectrum.subject import spectrum as audit

    print(
        audit(
            arguments.subject,
            layers=arguments.layers,
            size=arguments.size,
            plot=arguments.plot,
            as_json=arguments.json,
            ema=not arguments.no_ema,
            trust=arguments.trust,
        )
    )


def study(arguments: Namespace) -> None:
    """Run a study and report it, or name them all."""
    import torch

    from orthogan.studies.pool import default_jobs
    from orthogan.studies.registry import listing
    from orthogan.studies.run_study import Request, run_study

    if arguments.list or arguments.name is None:
        print(listing())
        return
    jobs = arguments.jobs or default_jobs(torch.cuda.is_available())
    request = Request(
        arguments.name,
        arguments.scale,
        arguments.seeds,
        Path(arguments.out),
        jobs,
        arguments.overrides,
        arguments.redo,
    )
    print(run_study(request))


def compare(arguments: Namespace) -> None:
    """Put runs side by side."""
    from orthogan.studies.compare import compare as side_by_side
    from orthogan.studies.report import numbers_table

    report, table = side_by_side([Path(run) for run in arguments.runs], Path(arguments.out))
    print(numbers_table(table))
    print(f"\n{report}, {report.with_name('report.html')}")


def evaluate(arguments: Namespace) -> None:
    """Score a generator, a set of images, a GAN, or a classifier."""
    _find(arguments)
    from orthogan.cli.evaluate import evaluate as score

    score(arguments)


def _find(arguments: Namespace) -> None:
    """Refuse what is not there, before anything is imported that takes seconds."""
    subjects = arguments.subject if isinstance(arguments.subject, list) else [arguments.subject]
    for path in subjects:
        if ":" not in path and not os.path.lexists(path) and find_shipped(path) is None:
            raise no_such(path)
    for option in ("directions", "weights", "data", "reference"):
        path = getattr(arguments, option, None)
        config = option == "data" and str(path).endswith((".yaml", ".yml"))
        if path and (config or option in ("directions", "weights")):
            check_regular(path)
        elif path and option == "reference" and not os.path.lexists(path):
            raise UserError(f"--reference {path}: there is no such file or folder")


def _open(path: str, arguments: Namespace) -> tuple[LoadedGenerator, Generator, torch.device]:
    from orthogan.device import chosen_device
    from orthogan.models.subject import open_generator

    device = chosen_device(arguments.device)
    trust = arguments.trust or own_names(vars(arguments).get("data"))
    subject = open_generator(path, device=device, ema=not arguments.no_ema, trust=trust)
    return subject, subject.net, device


def _label(arguments: Namespace, subject: LoadedGenerator, net: Generator) -> int | None:
    """The class that --class names."""
    if arguments.label is None:
        return None
    from orthogan.latent import parse_classes

    chosen = parse_classes(arguments.label, net.num_classes, subject.class_names)
    if len(chosen) > 1:
        raise UserError(f"--class {arguments.label}: this command shows one class at a time; name one")
    return chosen[0]
