"""Training speed of orthogan, a plain PyTorch loop, and other libraries, in one run: ``python -m benchmarks.run``.

There are seven tables. "step": the time of a step of SN-GAN at 32 px, images per second, and memory. "variants": the
cost of stable rank normalization and the nearest orthogonal gradient in such a step. "time-to-fd": the time until the
fakes reach a fixed Fréchet distance to the reals, for orthogan and the plain loop. "time-to-peer": the time until
orthogan's quick recipe reaches the distance of a peer's own recipe. "starts": the CPU time of whole commands, divided
by that of ``import torch``. "side-by-side": the speed of a run beside another one, and beside a busy process. "floor":
the minimum time of a step on this machine, in turns with the step.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.floor import floor_in_turns
from benchmarks.peers import OWN_NETS, PEERS
from benchmarks.rivals import Contender, Race, race
from benchmarks.setting import Setting
from benchmarks.side_by_side import side_by_side
from benchmarks.starts import starts
from benchmarks.time_to_fd import DATA, Budget, time_to_fd
from benchmarks.time_to_peer import CONFIGS as PEER_DATA
from benchmarks.time_to_peer import time_to_peer
from orthogan.device import fast_bf16

TABLES = ("step", "variants", "time-to-fd", "time-to-peer", "starts", "side-by-side", "floor")
CONFIGS: dict[str, list[str]] = {  # keys for all contenders of orthogan
    "sngan32": [],
    "srngan32": ["model.discriminator.norm.kind=stable_rank"],
}
OURS: dict[str, list[str]] = {
    "orthogan": [],
    "orthogan compiled": ["training.compile=default"],
    "orthogan not compiled": ["training.compile=none"],
    "orthogan CUDA graphs": ["training.compile=reduce-overhead"],
    "orthogan fp32": ["training.precision=fp32"],
    "orthogan contiguous": ["training.channels_last=false"],
    "orthogan streamed": ["data.resident=stream"],
    "orthogan fakes at once": ["training.fakes_at_once=true"],
}
# contenders that equal the default on that device, or do nothing there
ELSEWHERE = {"cpu": ("orthogan CUDA graphs", "orthogan not compiled"), "cuda": ("orthogan compiled",)}
PLAIN: dict[str, dict[str, bool]] = {
    "plain": {"bf16": False, "channels_last": False},
    "plain channels_last": {"bf16": False, "channels_last": True},
    "plain bf16": {"bf16": True, "channels_last": False},
    "plain bf16 channels_last": {"bf16": True, "channels_last": True},
}
VARIANTS: dict[str, list[str]] = {
    "sn": ["model.discriminator.norm.kind=spectral"],
    "srn": ["model.discriminator.norm.kind=stable_rank"],
    "nog": ["model.generator.gradient_transforms=[{kind: nearest_orthogonal, layers: [first]}]"],
    "nog polar_express": [
        "model.generator.gradient_transforms=[{kind: nearest_orthogonal, layers: [first], method: polar_express}]"
    ],
}
_DATA: dict[str, Iterable[str]] = {"time-to-fd": DATA, "time-to-peer": PEER_DATA}
SRN_LIMIT, NOG_LIMIT = 1.03, 1.05  # cost in a whole step, over SN and over no rule
OVER_PEERS = {"cuda": 5.0, "cpu": 7.0}  # images/s; on a CPU with fast bf16


def ours(overrides: Sequence[str]) -> Contender:
    """orthogan with some config keys set."""
    return {"kind": "orthogan", "overrides": list(overrides)}


def contenders(peers: Iterable[tuple[str, str]], overrides: Sequence[str]) -> dict[str, Contender]:
    """All contenders of the step table, by name; ``peers`` are names with paths."""
    found: dict[str, Contender] = {name: ours([*overrides, *more]) for name, more in OURS.items()}
    found |= {name: {"kind": "plain", **options} for name, options in PLAIN.items()}
    return found | {name: {"kind": name, "path": str(Path(path).expanduser().absolute())} for name, path in peers}


def recorded(entered: Mapping[str, Contender]) -> dict[str, Contender]:
    """Contenders for JSON, without the paths, which depend on the machine."""
    return {name: {key: value for key, value in one.items() if key != "path"} for name, one in entered.items()}


def chosen(only: str, known: Iterable[str]) -> list[str]:
    """The names in ``known`` that match the comma-separated patterns of ``only``; patterns after ``!`` exclude.

    Raises:
        ValueError: a pattern does not match anything.
    """
    names = list(known)
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not fnmatch.filter(names, word.removeprefix("!")):
            raise ValueError(f"--only: {word!r} matches no contender; there are {', '.join(names)}")
    wanted = [word for word in words if word[0] != "!"] or ["*"]
    unwanted = [word[1:] for word in words if word[0] == "!"]
    fits = [name for name in names if any(fnmatch.fnmatchcase(name, word) for word in wanted)]
    return [name for name in fits if not any(fnmatch.fnmatchcase(name, word) for word in unwanted)]


def fastest(race: Race, names: Iterable[str]) -> str | None:
    """The measured contender with the smallest median; None if none was measured."""
    there = [name for name in names if name in race.readings.seconds]
    return min(there, key=lambda name: statistics.median(race.readings.seconds[name]), default=None)


def step_table(found: Race, setting: Setting) -> str:
    """Markdown: seconds, images/s, memory, and the ratio of images/s to the plain loop and to the fastest peer."""
    peer = fastest(found, PEERS)
    bases = [name for name in ("plain", peer) if name and name in found.readings.seconds]
    memory = "GPU memory, peak MiB" if found.reserved else "process, peak MiB (increase after building)"
    lines = [["", "s per step", "min–max", "reals/s", memory, *(f"reals/s over {base}" for base in bases)]]
    lines.append(["---"] + ["---:"] * (len(lines[0]) - 1))
    for name, seconds in found.readings.seconds.items():
        middle = statistics.median(seconds)
        line = [name, f"{middle:.3f}", f"{min(seconds):.3f}–{max(seconds):.3f}", timing.digits(setting.reals / middle)]
        peak = max(found.readings.peak[name])
        above = "" if found.reserved else f" (+{(peak - found.facts[name]['rss built']) / 2**20:,.0f})"
        line.append(f"{peak / 2**20:,.0f}{above}")
        for base in bases:
            # every step has the same number of reals, so the ratio of rates is the inverse ratio of seconds
            ratio = found.readings.ratio(base, name)
            line.append(f"{timing.digits(ratio.median)} ({timing.digits(ratio.min)}–{timing.digits(ratio.max)})")
        lines.append(line)
    return timing.joined(lines)


def step_targets(found: Race, device: str) -> list[dict[str, Any]]:
    """Images/s divided by those of the fastest peer and of the fastest plain loop (median over the rounds)."""
    if "orthogan" not in found.readings.seconds:
        return []
    wanted = []
    peer, plain = fastest(found, PEERS), fastest(found, PLAIN)
    if peer and (device == "cuda" or fast_bf16("cpu")):
        least = OVER_PEERS[device]
        wanted.append((peer, f"reals/s over the fastest peer, {peer}: at least {least:g}", least))
    if plain:
        wanted.append((plain, f"reals/s over the fastest plain loop, {plain}: at least 1", 1.0))
    targets = []
    for base, asked, least in wanted:
        spread = found.readings.ratio(base, "orthogan")
        targets.append({"target": asked, **asdict(spread), "met": spread.median >= least})
    return targets


def variant_targets(found: Race) -> list[dict[str, Any]]:
    """The time of a whole step with each tool, divided by that of the step without it."""
    targets = []
    for name, limit in (("srn", SRN_LIMIT), ("nog", NOG_LIMIT), ("nog polar_express", NOG_LIMIT)):
        if {name, "sn"} <= set(found.readings.seconds):
            spread = found.readings.ratio(name, "sn")
            asked = f"{name} over sn alone, whole step: at most {limit}"
            targets.append({"target": asked, **asdict(spread), "met": spread.median <= limit})
    return targets


def show(title: str, one: dict[str, Any]) -> None:
    """Print a table, the absent contenders with reasons, and the targets."""
    print(f"\n### {title}\n\n{one['text']}\n")
    timing.show_outcome(one["absent"], one["targets"])


def measured(kind: str, asked: argparse.Namespace, logs: Path) -> dict[str, Any]:
    """The table "step" or "variants", printed and ready for JSON."""
    setting = setting_of(asked)
    if kind == "step":
        known = contenders(asked.peer, [*CONFIGS[asked.config], *asked.keys])
        known |= {name: ours([*CONFIGS[asked.config], *asked.keys, *keys]) for name, keys in asked.contender}
        names = [name for name in chosen(asked.only, known) if name not in ELSEWHERE[asked.device]]
        entered = {name: known[name] for name in names}
    else:
        entered = {name: ours([*keys, *asked.keys]) for name, keys in VARIANTS.items()}
    found = race(
        entered,
        setting,
        rounds=asked.rounds,
        steps=asked.steps,
        warm_up=asked.warm_up,
        logs=logs,
        title=kind,
        parts=asked.parts,
    )
    base = "sn" if kind == "variants" else fastest(found, entered)
    text = step_table(found, setting) if kind == "step" else timing.markdown(found.readings, str(base)) if base else ""
    targets = step_targets(found, setting.device) if kind == "step" else variant_targets(found)
    one = {"table": kind, "config": asked.config, "setting": asdict(setting), **asdict(found)}
    one |= {"contenders": recorded(entered), "targets": targets, "text": text}
    title = f"{kind}: {asked.config}, D {setting.channels}, G {setting.generator_channels}, batch {setting.batch}"
    show(f"{title}, n_dis {setting.n_dis}, {setting.device}", one)
    return one


def setting_of(asked: argparse.Namespace) -> Setting:
    """The setting given by the options; G is twice as wide as D and has twice the batch size."""
    return Setting(
        channels=asked.channels,
        generator_channels=2 * asked.channels,
        batch=asked.batch,
        generator_batch=2 * asked.batch,
        n_dis=asked.n_dis,
        images=max(asked.images, asked.batch * asked.n_dis),
        device=asked.device,
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The checked options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--config", choices=[*CONFIGS], default="sngan32", help="config that orthogan trains")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=f"one of {', '.join(PEERS)}")
    parser.add_argument("--tables", default="step,variants", help=f"comma-separated list of {', '.join(TABLES)}")
    parser.add_argument("--only", default="", help="names or patterns of contenders, comma-separated; ! excludes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="steps per measurement; by default, as many as take 2 s")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the measurements")
    parser.add_argument(
        "--parts", action="store_true", help="time the updates of D and G separately (waits for the device)"
    )
    parser.add_argument("--channels", type=int, default=128, help="width of D; G is twice as wide")
    parser.add_argument("--batch", type=int, default=64, help="reals per update of D; G uses twice as many fakes")
    parser.add_argument("--n-dis", type=int, default=5, help="updates of D per step")
    parser.add_argument("--images", type=int, default=50_000, help="images in the data set")
    parser.add_argument(
        "--keys", nargs="+", default=[], metavar="KEY=VALUE", help="config keys for all contenders of orthogan"
    )
    parser.add_argument(
        "--contender",
        action="append",
        nargs="+",
        default=[],
        metavar="NAME KEY=VALUE",
        help="one more orthogan with these keys",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--data",
        help=f"data sets, comma-separated; time-to-fd: {', '.join(DATA)}; time-to-peer: {', '.join(PEER_DATA)}",
    )
    parser.add_argument("--seeds", type=int, default=3, help="time-to-fd, time-to-peer: runs of each of the two")
    parser.add_argument(
        "--seconds",
        type=float,
        default=240.0,
        help="time-to-fd: time limit of one run; time-to-peer: of the peer; without scoring",
    )
    parser.add_argument(
        "--level", type=float, help="time-to-fd: the distance to reach; by default, a pilot run sets it"
    )
    parser.add_argument("--samples", type=int, default=1000, help="time-to-fd: fakes per score")
    parser.add_argument("--every", type=int, default=2560, help="time-to-fd: reals between two scores")
    parser.add_argument("--width", type=int, default=32, help="time-to-fd: width of both networks")
    parser.add_argument(
        "--logs", type=Path, help="folder for the output of the contenders; by default, a temporary one"
    )
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    asked = parser.parse_args(arguments)
    for name in ("rounds", "warm_up", "channels", "batch", "n_dis", "images", "seeds", "samples", "every", "width"):
        if getattr(asked, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(asked, name)}: at least 1")
    if asked.steps is not None and asked.steps < 1:
        parser.error(f"--steps is {asked.steps}: at least 1")
    asked.tables = _words(parser, "--tables", asked.tables, TABLES)
    known = [name for table, names in _DATA.items() if table in asked.tables for name in names]
    asked.data = _words(parser, "--data", asked.data or ",".join(dict.fromkeys(known)), known)
    peers = [word.partition("=")[::2] for word in asked.peer]
    for name, path in peers:
        if name not in PEERS or not path:
            parser.error(f"--peer is {name}={path}: write NAME=PATH, where NAME is one of {', '.join(PEERS)}")
        if name in OWN_NETS and "step" in asked.tables:
            parser.error(f"--peer {name} trains only its own networks: use it with --tables time-to-peer")
    asked.peer = peers
    asked.contender = [(words[0], words[1:]) for words in asked.contender]
    if asked.device == "auto":
        asked.device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen(asked.only, [*OURS, *PLAIN, *dict(peers), *dict(asked.contender)])
    except ValueError as error:
        parser.error(str(error))
    return asked


def _words(parser: argparse.ArgumentParser, option: str, text: str, known: Iterable[str]) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in known]:
        parser.error(f"{option}: there is no {', '.join(unknown)}; choose out of {', '.join(known)}")
    return words


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and write the raw numbers; returns the same data."""
    asked = parsed(arguments)
    tables: list[dict[str, Any]] = []
    result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "tables": tables}
    result |= {"machine": timing.machine(torch.device(asked.device)), "rounds": asked.rounds}
    with tempfile.TemporaryDirectory(prefix="race-logs-") as folder:
        logs = asked.logs or Path(folder)
        budget = Budget(asked.seconds, asked.seeds, asked.level, asked.samples, asked.every, asked.width)
        for kind in asked.tables:
            if kind == "time-to-fd":
                for data in [name for name in asked.data if name in DATA]:
                    tables.append(time_to_fd(data, budget, device=asked.device, keys=asked.keys, logs=logs))
                    show(f"{kind}, {data}", tables[-1])
                    timing.write(result, asked.json)
            elif kind == "time-to-peer":
                for data, (name, path) in itertools.product(
                    [name for name in asked.data if name in PEER_DATA], asked.peer
                ):
                    peer: Contender = {"kind": name, "path": str(Path(path).expanduser().absolute())}
                    tables.append(time_to_peer(data, peer, budget, device=asked.device, logs=logs))
                    show(f"{kind}, {data}, {name}", tables[-1])
                    timing.write(result, asked.json)
            elif kind == "starts":
                tables.append(starts(asked.rounds))
                show(f"{kind}, CPU time", tables[-1])
                timing.write(result, asked.json)
            elif kind in ("side-by-side", "floor"):
                one = ours([*CONFIGS[asked.config], *asked.keys])
                amount = {"rounds": asked.rounds, "steps": asked.steps, "warm_up": asked.warm_up}
                made = side_by_side if kind == "side-by-side" else floor_in_turns
                tables.append(made(one, setting_of(asked), **amount, logs=logs))
                show(f"{kind}: D {asked.channels}, batch {asked.batch}, n_dis {asked.n_dis}", tables[-1])
                timing.write(result, asked.json)
            else:
                tables.append(measured(kind, asked, logs))
                timing.write(result, asked.json)
    return result


if __name__ == "__main__":
    main()
