"""Show versions, devices and the locations of weights, and how to get what is missing; for bug reports.

Nothing is downloaded and nothing is changed. Files of weights are checked by their hashes.

Example: orthogan env --json
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orthogan.cli.arguments import add_json
from orthogan.errors import UserError, install

# environment variables that change what orthogan does; no others are shown, since they may hold secrets
VARIABLES = re.compile(
    "ORTHOGAN_.*|(OMP|MKL|OPENBLAS)_NUM_THREADS|DNNL_.*|CUDA_VISIBLE_DEVICES|PYTORCH_.*_CONF|TORCH_HOME|HF_HOME"
    "|HF_HUB_OFFLINE|HF_ENDPOINT|HF_HUB_CACHE|XDG_CACHE_HOME|PYTHONPATH|WORLD_SIZE|RANK|LOCAL_RANK|SLURM_JOB_ID"
)
HIDDEN_EXTRAS = ("all", "dev", "docs")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_json(parser, "everything as one JSON object")


def run(arguments: Namespace) -> None:
    """Print the report."""
    found = environment()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    from orthogan.io.terminal import text_table

    for title, part in found.items():
        if part:
            print(f"{title}\n{text_table(_rows(part), 'll')}\n")


def environment() -> dict[str, Any]:
    """Return everything that the command shows, ready for JSON."""
    return {
        "orthogan": _orthogan(),
        "machine": _machine(),
        "devices": dict(_devices()),
        "packages": _packages(),
        "extras": _extras(),
        "weights of feature extractors": dict(_weights()),
        "shipped models": _models(),
        "folders": _folders(),
        "environment variables": {name: os.environ[name] for name in sorted(os.environ) if VARIABLES.fullmatch(name)},
    }


def _rows(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of one part; an entry that is a mapping continues below its name."""
    rows: list[tuple[str, str]] = []
    for name, value in part.items():
        if isinstance(value, Mapping):
            (_, first), *rest = value.items()
            rows += [(f"  {name}", str(first)), *(("", f"{key}: {text}") for key, text in rest if text)]
        else:
            rows.append((f"  {name}", ", ".join(value) if isinstance(value, list) else str(value)))
    return rows


def _orthogan() -> dict[str, str]:
    import orthogan

    folder = Path(orthogan.__file__).parent
    found = {"version": orthogan.__version__, "folder": str(folder)}
    if (folder.parent / ".git").exists():
        git = ["git", "-C", str(folder.parent), "describe", "--always", "--dirty"]
        try:
            found["commit"] = subprocess.run(git, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            found["commit"] = "unknown"
    return found


def _machine() -> dict[str, Any]:
    from orthogan.device import machine

    return {name: value for name, value in machine().items() if name not in ("orthogan", "torch", "gpu")}


def _devices() -> Iterator[tuple[str, str]]:
    """Yield what each device is and can do."""
    import torch

    from orthogan.device import fast_bf16

    bf16 = {True: "fast bfloat16", False: "no fast bfloat16"}
    yield (
        "cpu",
        f"{torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}, {bf16[fast_bf16('cpu')]}",
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = f"{about.total_memory / 2**30:.0f} GiB"
            yield f"cuda:{index}", f"{about.name}, {memory}, {bf16[fast_bf16('cuda')]}, CUDA {torch.version.cuda}"
    else:
        built = f"no GPU is visible to CUDA {torch.version.cuda}" if torch.version.cuda else "this torch has no CUDA"
        yield "cuda", f"not available ({built})"
    yield "mps", "available" if torch.backends.mps.is_available() else "not available"


def _requirements() -> dict[str, list[str]]:
    """Return the names of the required packages, by extra ("" for all installations)."""
    from importlib import metadata

    found: dict[str, list[str]] = {}
    try:
        lines = metadata.requires("orthogan") or []
    except metadata.PackageNotFoundError:  # used from a folder, without installation
        lines = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        if name and name[0] != "orthogan":
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _packages() -> dict[str, str]:
    return {name: _version(name) for name in sorted(_requirements().get("", ()), key=str.lower)}


def _extras() -> dict[str, dict[str, Any]]:
    """Return for each extra whether it is complete, and what installs it if not."""
    found: dict[str, dict[str, Any]] = {}
    for extra, names in sorted(_requirements().items()):
        if extra and extra not in HIDDEN_EXTRAS:
            versions = {name: _version(name) for name in names}
            missing = "missing" in versions.values()
            words = ", ".join(f"{name} {version}" for name, version in versions.items())
            found[extra] = {"packages": words, "to install it": install(extra) if missing else ""}
    return found


def _weights() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield for each feature extractor where its weights are, or how to get them."""
    from orthogan.evaluation.extractors.extractor import EXTRACTORS
    from orthogan.evaluation.extractors.weights_files import find_weights

    for name, kind in EXTRACTORS.items():
        file = kind.published()
        if file is None:
            yield name, {"state": "part of the installation"}
            continue
        how = f"put {file.name} from {file.url} into pretrained/"
        try:
            path = find_weights(file.url, file.name, file.sha256)
            yield name, {"state": str(path)} if path else {"state": "missing", "to get them": how}
        except UserError as error:
            yield name, {"state": "damaged", "problem": str(error), "to get them": how}


def _models() -> dict[str, str]:
    from orthogan.models.shipped import shipped_models

    return {name: str(path) for name, path in shipped_models().items()}


def _folders() -> dict[str, str]:
    from orthogan.config.read import shipped_configs
    from orthogan.evaluation.extractors.weights_files import search_folders
    from orthogan.io.read import cache_folder

    return {
        "configs": str(shipped_configs()),
        "cache": str(cache_folder()),
        "weights, in this order": ", ".join(map(str, search_folders())),
        "current": os.getcwd(),
    }
