"""The command line: parses and calls, decides nothing."""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache

from orthogan import __version__
from orthogan.errors import EXIT_BUG, EXIT_DONE, EXIT_USER, Diverged, PeerFailed, Stopped, UserError, install
from orthogan.interrupts import Interrupts
from orthogan.io.read import printable, shown
from orthogan.io.terminal import Plain
from orthogan.memory import keep_freed_memory, out_of_memory

MOST_SAMPLES = 10**7
LARGEST_SEED = 2**63 - 1
LONGEST_MESSAGE = 4000  # characters; files may hold words of any length, and messages quote them
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # wherever they are met, the user has to act


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 a bug, 2 your input, 3 diverged, 4 stopped and resumable."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path that is not UTF-8, or a terminal that knows only ASCII
            stream.reconfigure(errors="backslashreplace")
    out, err = Plain(sys.stdout), Plain(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), Interrupts() as interrupts:  # pyright: ignore[reportArgumentType]
        return _run(argv, interrupts)


def _run(argv: Sequence[str] | None, interrupts: Interrupts) -> int:
    try:
        arguments = parse(argv)
        interrupts.command = arguments.command
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # we report lost processes in our own words
        from orthogan.cli import commands  # after parsing: --help need not wait for it

        keep_freed_memory()
        getattr(commands, arguments.command)(arguments)
        sys.stdout.flush()
    except (UserError, Stopped, PeerFailed) as error:
        return _ended(str(error), error.exit_code)
    except Diverged as error:
        return _ended(f"training diverged: {error}; the last good checkpoint is kept", error.exit_code)
    except KeyboardInterrupt as error:
        return _ended(*interrupts.outcome(error))
    except BrokenPipeError:  # `orthogan config | head`
        sys.stderr.close()
    except Exception as error:
        if (reason := _outside(error)) is not None:
            return _ended(reason, EXIT_USER)
        traceback.print_exc()
        return _ended("this is a bug in orthogan; please report it together with the text above", EXIT_BUG)
    return EXIT_DONE


def _ended(line: str, code: int) -> int:
    if len(line) > LONGEST_MESSAGE:  # its ends name the file and the fix
        line = f"{line[: LONGEST_MESSAGE // 2]} … {line[-LONGEST_MESSAGE // 2 :]}"
    print(f"orthogan: {line}", file=sys.stderr)
    return code


def _outside(error: Exception) -> str | None:
    """What the machine refused, in words: memory, a disk, a path; None: a bug."""
    if out_of_memory(error):
        return f"out of memory; make the batch, the images or the model smaller ({error})"
    if isinstance(error, OSError) and error.strerror:
        if error.errno in DISK:
            return f"cannot write {printable(error.filename or 'the output')}: {error.strerror}"
        return f"{printable(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return None


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a command line; ends the process with a message where they mean nothing.

    ``key=value`` may also stand after options, where argparse finds no place for it. ``orthogan`` alone and
    ``orthogan help [COMMAND]`` print the help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] == "help":
        words = [*words[1:2], "--help"]
    arguments, rest = _parser()[0].parse_known_args(words)
    late = [word for word in rest if "=" in word and not word.startswith("-")] if "overrides" in arguments else []
    if len(late) < len(rest):
        commands()[arguments.command].error(
            f"unrecognized arguments: {' '.join(word for word in rest if word not in late)}"
        )
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse says `unrecognized arguments`; this also names the closest option of the same command."""

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if "unrecognized" in message:
            known = [option for action in self._actions for option in action.option_strings]
            unknown = [word.split("=")[0] for word in message.split() if word.startswith("--")]
            near = [n for word in unknown for n in difflib.get_close_matches(word, known, 1)]
            if near:
                message += f" (did you mean {near[0]}?)"
            elif "overrides" in {action.dest for action in self._actions} and unknown:
                message += " (keys of the config are set as key=value, for example out=runs/mine)"
        super().error(message)


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each command."""
    return _parser()[1]


@cache
def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="orthogan",
        description="Train GANs with well-conditioned layers, score and explore them.",
        epilog="`orthogan COMMAND --help` describes a command and shows an example.",
    )
    parser.add_argument("--version", action="version", version=f"orthogan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser(
        "train",
        help="train the model of a config; run it again to continue",
        description="Train the model of a config. The same command continues an interrupted run.",
        epilog="example: orthogan train configs/cifar10/srngan.yaml seed=3 model.discriminator.norm.c=0.5",
    )
    _config_arguments(train)
    train.add_argument("--dry-run", action="store_true", help="build everything, do one step of each phase, stop")
    train.add_argument("--allow-config-change", action="store_true", help="continue a run under another config")
    _trust_argument(train)

    config = commands.add_parser(
        "config",
        help="print the complete config, defaults and all",
        description="Print the complete config that a file and overrides give, as YAML.",
        epilog="example: orthogan config configs/demo.yaml training.steps=1000 --explain",
    )
    _config_arguments(config)
    config.add_argument("--explain", action="store_true", help="with the meaning and unit of every key of this task")

    evaluate = commands.add_parser(
        "evaluate",
        help="FID, Inception Score, KID, precision and recall of a run, a checkpoint or a folder of images; accuracy "
        "of a classifier, also on corrupted and attacked images",
        description="Score a run, a checkpoint, a file of weights or a folder of images, and print each score with its "
        "protocol. Scores of a run are also kept in its metrics.jsonl.",
        epilog="example: orthogan evaluate runs/cifar10/resnet18 --metrics accuracy,corruptions,pgd --samples 1000",
    )
    evaluate.add_argument("subject", help="run, checkpoint, .safetensors file, or folder/.zip of images")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value", help="over the config of --data")
    evaluate.add_argument(
        "--metrics",
        default="fid",
        help="comma-separated: fid, isc, kid, prc, ppl2_wend, ppl_zend_v2, ppl_nog, …, "
        "pixel_path_length, feature_path_length; of a GAN's run neural_divergence, lipschitz; of a classifier "
        "accuracy, corruptions, fgsm, pgd, complexity (default: fid)",
    )
    evaluate.add_argument(
        "--samples",
        type=_samples,
        help="fakes to draw, or pairs of a path length (default: 50000), pairs of lipschitz (default: 10000); of a "
        "classifier a subset of the images (default: all)",
    )
    evaluate.add_argument(
        "--extractor",
        default="auto",
        help="inception, efficientnet-lite0, vgg16, clip-vit-b-32, dinov2-vit-s-14, … or module:Class; "
        "auto = inception if its weights are here, else efficientnet-lite0 (default: auto)",
    )
    evaluate.add_argument("--weights", help="weights file of the extractor, instead of the searched ones")
    evaluate.add_argument(
        "--reference", help="statistics (.safetensors, .npz) or images (folder, .zip) to compare with"
    )
    evaluate.add_argument(
        "--reference-samples", type=_samples, help="compare with a seeded subset of the real images (default: all)"
    )
    evaluate.add_argument(
        "--kid-subset-size",
        type=_whole(2, 10**6),
        help="images in each subset of kid (default: 1000, as published; another size is another KID)",
    )
    evaluate.add_argument("--save-reference", help="write the reference statistics to this .safetensors file")
    evaluate.add_argument("--data", help="config whose data is the reference (default: the subject's own)")
    evaluate.add_argument(
        "--split",
        help="part of the data to compare with (default: the one trained on) or to classify (default: the test part)",
    )
    evaluate.add_argument("--truncation", type=_truncation, default=1.0, help="of the latents (default: 1 = none)")
    evaluate.add_argument("--norm", choices=["inf", "2"], default="inf", help="of fgsm and pgd (default: inf)")
    evaluate.add_argument(
        "--eps", help="of fgsm and pgd, in 1/255, such as 2,8: a score for each (default: 2,8; 32,128 with --norm 2)"
    )
    evaluate.add_argument("--steps", type=_whole(1, 100_000), default=20, help="of pgd (default: 20)")
    evaluate.add_argument(
        "--restarts", type=_whole(0, 1000), default=1, help="random starts of pgd; 0 = the image (default: 1)"
    )
    evaluate.add_argument(
        "--critic",
        metavar="KEY=VALUE,…",
        help="of neural_divergence: steps, batch_size, width, lr, penalty, average where they are not to be as "
        "published, such as steps=2000,width=16 (default: 100000 steps of 256)",
    )
    evaluate.add_argument("--seed", type=_seed, default=0, help="of latents, subsets, noise, attacks (default: 0)")
    evaluate.add_argument("--batch-size", type=_whole(1, 1 << 16), default=64, help="images at a time (default: 64)")
    evaluate.add_argument(
        "--precision",
        choices=["fp32", "bf16", "auto"],
        default="fp32",
        help="of sampling and features; auto = bf16 sampling where it is fast (default: fp32, as published)",
    )
    evaluate.add_argument("--json", action="store_true", help="print the results with their protocol as JSON lines")
    _net_arguments(evaluate)

    sample = commands.add_parser(
        "sample",
        help="draw images: one grid, or a file for each seed",
        description="Draw the images of a generator. The same seed always gives the same image.",
        epilog="example: orthogan sample runs/demo --seeds 0-63 --out samples.png",
    )
    sample.add_argument("subject", help="run, checkpoint, .safetensors file, or module:Class")
    sample.add_argument("--seeds", default="0-63", help="such as 0-63,70; each seed is one image (default: 0-63)")
    sample.add_argument("--classes", "--class", help="class numbers or names, comma-separated (default: all in turn)")
    sample.add_argument("--truncation", type=_truncation, default=1.0, help="(default: 1 = none)")
    sample.add_argument("--out", default="samples.png", help=".png for a grid, or a folder (default: samples.png)")
    _net_arguments(sample)

    traverse = commands.add_parser(
        "traverse",
        help="what each latent direction does: a row of images for each",
        description="Move one latent along each direction and show the images: a picture, an animation or a web page.",
        epilog="example: orthogan traverse runs/demo --method sefa --dims 0-7 --control 2 --out traversal.html",
    )
    traverse.add_argument("subject", help="run, checkpoint, .safetensors file, or module:Class")
    _direction_arguments(traverse)
    traverse.add_argument("--save-directions", help="write the directions to this .safetensors file")
    traverse.add_argument("--dims", default="all", help="all, or numbers such as 0,3,5 or 0-7 (default: all)")
    traverse.add_argument("--range", type=_real(1e-9, 1e9), default=3.0, help="how far to both sides (default: 3)")
    traverse.add_argument("--steps", type=_whole(1, 1001), default=11, help="columns, an odd number (default: 11)")
    traverse.add_argument("--seed", type=_seed, default=7, help="of the base image (default: 7)")
    traverse.add_argument("--seeds", help="several base images, such as 0-4: a contact sheet (.png)")
    traverse.add_argument("--class", "--classes", dest="label", help="class number or name of a conditional model")
    traverse.add_argument("--truncation", type=_truncation, default=1.0, help="(default: 1 = none)")
    traverse.add_argument("--base", choices=("sample", "zero"), default="sample", help="where rows start")
    traverse.add_argument("--centred", action="store_true", help="set the coordinate instead of adding to it")
    traverse.add_argument(
        "--walk",
        choices=("line", "sphere"),
        default="line",
        help="line, or sphere: a great circle that keeps the latent's length (default: line)",
    )
    traverse.add_argument("--heatmap", action="store_true", help="show where each row changes (.png, .html)")
    traverse.add_argument(
        "--control", type=_whole(0, 1 << 16), default=0, help="rows along random directions (default: 0)"
    )
    traverse.add_argument(
        "--out", default="traversal.png", help=".png, .gif, .webp, .mp4 or .html (default: traversal.png)"
    )
    _net_arguments(traverse)

    discover = commands.add_parser(
        "discover",
        help="find directions in the latent space, scored beside random ones",
        description="Find directions, merge near duplicates, score them beside random ones, write a Directions file.",
        epilog="example: orthogan discover runs/demo --method sefa,jacobian --components 8 --out found.safetensors",
    )
    discover.add_argument("subject", help="run, checkpoint, .safetensors file, or module:Class")
    discover.add_argument(
        "--method",
        default="sefa",
        help="comma-separated: native, sefa, pca, jacobian, hessian, orojar, learned, random, identity (default: sefa)",
    )
    discover.add_argument("--out", default="directions.safetensors", help="(default: directions.safetensors)")
    discover.add_argument("--layer", help="of sefa, pca, jacobian, hessian, orojar (default: chosen and named)")
    discover.add_argument("--space", default="z", help="z, or w of a generator that has it (default: z)")
    discover.add_argument("--layers", help="with --space w, such as 0-3: directions that move only these styles")
    discover.add_argument("--components", type=_whole(1, 1 << 16), help="how many directions (default: all)")
    discover.add_argument("--samples", type=_whole(1, 10**6), help="latents that pca and jacobian look at")
    discover.add_argument("--steps", type=_whole(1, 10**6), help="of hessian, orojar and learned")
    discover.add_argument("--rca", action="store_true", help="score how well a small net tells them apart (minutes)")
    discover.add_argument("--threshold", type=_real(0, 1), default=0.9, help="merge above this |cosine| (default: 0.9)")
    discover.add_argument("--class", "--classes", dest="label", help="class number or name of a conditional model")
    discover.add_argument("--seed", type=_seed, default=0, help="(default: 0)")
    _net_arguments(discover)

    disentangle = commands.add_parser(
        "disentangle",
        help="how well separated the latent directions are: VP, MIG, DCI, … beside random directions",
        description="Measure the directions of a generator beside random ones; of several runs, also over the runs.",
        epilog="example: orthogan disentangle runs/sprites/eigengan --metrics vp,mig,dci --data sprites",
    )
    disentangle.add_argument("subject", nargs="+", help="runs, checkpoints, .safetensors files, or module:Class")
    disentangle.add_argument(
        "--metrics",
        default="vp,activeness",
        help="comma-separated: vp, activeness; with --data also mig, dci, sap, modularity, explicitness, code_vote, "
        "and encoder:mig, encoder:factor_vae, … (default: vp,activeness)",
    )
    disentangle.add_argument("--data", help="images with factors: sprites, sprites-colour, or a config")
    _direction_arguments(disentangle)
    disentangle.add_argument("--samples", type=_samples, default=10_000, help="images of a metric (default: 10000)")
    disentangle.add_argument("--seeds", default="0-2", help="of the metrics, such as 0-4 (default: 0-2)")
    disentangle.add_argument("--class", "--classes", dest="label", help="class number or name of a conditional model")
    disentangle.add_argument(
        "--set", action="append", default=[], metavar="METRIC.KEY=VALUE", help="such as vp.protocol=published"
    )
    disentangle.add_argument("--no-controls", action="store_true", help="leave out the random directions")
    disentangle.add_argument("--json", action="store_true", help="print the results with their protocol as JSON lines")
    _net_arguments(disentangle)

    explore = commands.add_parser(
        "explore",
        help="a live page in your browser: a slider for each direction, seed, class, export",
        description=f"Serve a live page on this machine; Ctrl-C ends it. It needs {install('explore')}.",
        epilog="example: orthogan explore runs/demo --directions found.safetensors --open",
    )
    explore.add_argument("subject", help="run, checkpoint, .safetensors file, or module:Class")
    _direction_arguments(explore)
    explore.add_argument("--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1)")
    explore.add_argument("--port", type=int, default=7860, help="0 = any free one (default: 7860)")
    explore.add_argument("--open", action="store_true", help="open the page in the browser")
    _net_arguments(explore)

    spectrum = commands.add_parser(
        "spectrum",
        help="singular values, stable rank, condition and orthogonality of every layer of any net",
        description="What the weights of a net look like: of a run, of a checkpoint, or of somebody else's model.",
        epilog="example: orthogan spectrum torchvision.models:resnet18 --layers conv --plot spectrum.png",
    )
    spectrum.add_argument("subject", help="run, checkpoint, .safetensors, .pth of tensors, or module:Class")
    spectrum.add_argument("--layers", default="", help="such as conv,tall or G.blocks.* (default: all)")
    spectrum.add_argument(
        "--size", type=_whole(1, 128), default=8, help="side of the map for a convolution's operator norm (default: 8)"
    )
    spectrum.add_argument("--plot", help="draw the singular values to this .png")
    spectrum.add_argument("--json", action="store_true", help="print everything, singular values too, as JSON")
    spectrum.add_argument("--no-ema", action="store_true", help="the raw weights instead of their average")
    _trust_argument(spectrum)

    study = commands.add_parser(
        "study",
        help="what a paper measured, measured again: configs x methods x seeds, one table, one report",
        description="Run a study, or go on with it: finished runs are never run again. REPORT.md, report.html and "
        "table.json lie in OUT/NAME/SCALE.",
        epilog="example: orthogan study opt --scale cpu --seeds 3 data.path=/usr/share/datasets/fashion-mnist",
    )
    study.add_argument("name", nargs="?", help="one of --list, or module:STUDY of your own")
    study.add_argument("overrides", nargs="*", metavar="key=value", help="over the config that all runs build on")
    study.add_argument("--list", action="store_true", help="name the studies and their sizes")
    study.add_argument(
        "--scale",
        default="smoke",
        help="smoke: a minute, means nothing; cpu: hours on two cores; full: as published (default: smoke)",
    )
    study.add_argument(
        "--seeds", type=_whole(1, 1000), help="runs of each method, seeds 0, 1, … (default: the scale's)"
    )
    study.add_argument("--out", default="runs/studies", help="(default: runs/studies)")
    study.add_argument(
        "--jobs", type=_whole(1, 1024), help="runs at a time (default: one a core, at most 8; on a GPU 1)"
    )
    study.add_argument(
        "--redo", action="append", default=[], metavar="METHOD", help="throw this method's runs away first, and say so"
    )

    compare = commands.add_parser(
        "compare",
        help="any runs in one table: mean and interval over seeds, differences, curves",
        description="Runs that differ only in the seed are one row. Unlike protocols never share a column.",
        epilog="example: orthogan compare runs/sn-* runs/srn-* --out comparison",
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders; differences are to the first one's row")
    compare.add_argument("--out", default="comparison", help="folder of the report (default: comparison)")
    return parser, commands.choices


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as training.batch_size=32")


def _direction_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        default="native",
        help="how to find the directions, as in orthogan discover, such as native, sefa or jacobian (default: native)",
    )
    parser.add_argument("--directions", help="a Directions file, instead of --method")
    parser.add_argument("--layers", help="such as 0-3: only these styles move (directions in w)")


def _net_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-ema", action="store_true", help="the raw weights instead of their average")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest here)")
    _trust_argument(parser)


def _trust_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import and run the module:Class that a file names, and open the data that it names (see SECURITY.md)",
    )


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be from {least:,} to {most:,}")
        return value

    return read


def _real(least: float, most: float) -> Callable[[str], float]:
    """A reader of numbers from ``least`` to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)}: must be a number from {least:g} to {most:g}")
        return value

    return read


_seed = _whole(0, LARGEST_SEED)
_samples = _whole(1, MOST_SAMPLES)
_truncation = _real(0, 1)
