"""Nothing that a file names runs without the user's word: every command, every net in a file, every way to run code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import orthogan
from orthogan.cli.main import main
from orthogan.config.base import MayNameCode, Section, literals, marker_of, section_class
from orthogan.config.files import load_config, own_names
from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import load_extractor
from orthogan.io import checkpoint
from orthogan.io.checkpoint import Part
from orthogan.models.build import build_classifier, build_discriminator, build_generator
from orthogan.models.open import load_classifier, load_discriminator, open_model
from orthogan.models.saved import CLASSIFIER, CLASSIFIER_FORMAT, RAW, metadata
from orthogan.studies.finished import FinishedRun
from orthogan.studies.study import get_study
from orthogan.training.score_worker import measure_of
from tests.fixtures.runs import TINY, tiny

BESIDE = """
from pathlib import Path

import torch

Path({canary!r}).touch()


class Net(torch.nn.Module):
    latent_dim, num_classes, image_channels, resolution = 8, 0, 1, 32

    def __init__(self, **sizes):
        super().__init__()
        self.linear = torch.nn.Linear(8, 1024)

    def forward(self, z, y=None):
        return self.linear(z).tanh().view(-1, 1, 32, 32)


class Extractor(torch.nn.Module):
    def forward(self, images):
        return images.float().flatten(1)[:, :16]
"""
# what is named, with its options; each leaves the file CANARY behind if it is imported or called
CODE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "os:system": lambda canary: {"command": f"touch {canary}"},
    "subprocess:getoutput": lambda canary: {"cmd": f"touch {canary}"},
    "timeit:timeit": lambda canary: {"stmt": f"open({str(canary)!r}, 'w').close()"},
    "subprocess:Popen": lambda canary: {"args": ["touch", str(canary)]},
    "beside:Net": lambda canary: {},
}
CLASSIFY = ["task=classifier", "model.classifier.kind=mlp", "model.classifier.channels=4"]
CLASSIFY += ["data.holdout=0.2"]
CLASSIFY += [word for word in TINY if word.startswith("data.")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module in it, as a downloaded zip might have one."""
    (tmp_path / "beside.py").write_text(BESIDE.format(canary=str(tmp_path / "canary")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    yield tmp_path
    sys.modules.pop("beside", None)


@cache
def nets(classifier: bool) -> tuple[Config, dict[str, Tensor], dict[str, Tensor]]:
    """A config and the tensors of its classifier (and none), or of its generator and its discriminator."""
    if classifier:
        config = load_config(None, CLASSIFY)
        return config, build_classifier(config, num_classes=3).state_dict(), {}
    config = tiny(Path("run"))
    built = build_generator(config, num_classes=0), build_discriminator(config, num_classes=0)
    return config, *(net.state_dict() for net in built)


def written(
    folder: Path, part: str, kind: str | None, options: dict[str, Any], *, data: dict[str, Any] | None = None
) -> Path:
    """A run of one checkpoint whose files name ``kind`` as their ``part``; its tensors are those of built-in nets."""
    config, tensors, critic = nets(part == "classifier")
    tree = config.model_dump()
    if data is not None:
        tree["data"] = {**data, "channels": tree["data"]["channels"], "holdout": tree["data"]["holdout"]}
    if kind is not None:
        tree["model"][part] |= {"kind": kind, "options": options, "norm": {"kind": "none"}}
    if part == "classifier":
        parts = {CLASSIFIER: Part(tensors, metadata(tree, 3, {}, form=CLASSIFIER_FORMAT, tensors=tensors))}
    else:
        if kind == "beside:Net" and part == "generator":
            tensors = {"linear.weight": torch.zeros(1024, 8), "linear.bias": torch.zeros(1024)}
        about = metadata(tree, 0, {}, tensors=tensors)
        parts = {RAW: Part(tensors, about), "discriminator": Part(critic, {})}
    checkpoint.save(folder, 1, parts, {"config": tree, "seconds": 0.0})
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder


# command lines; RUN, STEP, FILE, D: the run, its checkpoint, the file of the net and that of the discriminator
OF_GAN = [
    "sample FILE",
    "sample RUN",
    "sample STEP",
    "traverse FILE --steps 3",
    "discover FILE",
    "disentangle FILE --metrics vp",
    "explore FILE --port 0",
    "spectrum FILE",
    "spectrum RUN",
    "spectrum D",
    "evaluate FILE --samples 8",
    "evaluate RUN --samples 8",
    "evaluate RUN --metrics lipschitz --samples 8",
    "evaluate RUN --metrics neural_divergence --samples 8",
    "train empty.yaml TINY model.init=FILE out=new --dry-run",
    "train empty.yaml TINY model.init=RUN out=new --dry-run",
    "train RUN/config.yaml out=new --dry-run",
    "train based.yaml out=new --dry-run",
]
OF_CLASSIFIER = [
    "evaluate FILE --metrics accuracy",
    "evaluate RUN --metrics complexity",
    "spectrum FILE",
    "spectrum RUN",
    "train RUN/config.yaml out=new --dry-run",
]
ROUTES = [(part, command) for part in ("generator", "discriminator") for command in OF_GAN]
ROUTES += [("classifier", command) for command in OF_CLASSIFIER]


def command_line(command: str, run: Path) -> list[str]:
    step = checkpoint.checkpoint_folder(run, 1)
    file = next(file for name in (RAW, CLASSIFIER) if (file := step / f"{name}.safetensors").is_file())
    Path("empty.yaml").touch()
    Path("based.yaml").write_text(f"base: {run / 'config.yaml'}\n")
    names = {"RUN": run, "STEP": step, "FILE": file, "D": step / "discriminator.safetensors"}
    words: list[str] = []
    for word in command.split():
        head, sign, name = word.rpartition("=")
        name, slash, tail = name.partition("/")
        words += TINY if word == "TINY" else [f"{head}{sign}{names.get(name, name)}{slash}{tail}"]
    return words


@pytest.mark.parametrize(("part", "command"), ROUTES)
def test_no_command_runs_what_a_file_names(
    here: Path, part: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, kind in enumerate(("os:system", "timeit:timeit", "beside:Net")):
        options = CODE[kind]
        run = written(here / f"run{index}", part, kind, options(here / "canary"))
        assert main(command_line(command, run)) == 2
        said = capsys.readouterr().err
        assert kind in said
        assert "--trust" in said
        assert all(key in said for key in options(here / "canary"))
        assert not (here / "canary").exists()
        assert "" not in sys.path


@pytest.mark.parametrize(
    "opened",
    [
        lambda run: orthogan.load(run),
        lambda run: orthogan.load(run / "checkpoints" / "step-000000001" / "generator.safetensors"),
        lambda run: load_discriminator(run),
        lambda run: FinishedRun(run).net(),
        lambda run: load_config(run / "config.yaml"),
    ],
)
def test_no_function_runs_what_a_file_names(here: Path, opened: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"beside:Net.*trust=True"):
        opened(written(here / "run", "generator", "beside:Net", {}))
    assert not (here / "canary").exists()


def _base_beside_it(file: Path) -> Path:
    file.rename(file.with_name("more.yaml"))
    file.write_text("base: more.yaml\n")
    return file


def _bases_below(file: Path) -> Path:
    below = file.parent / "a" / "b.yaml"
    below.parent.mkdir()
    file.rename(below)
    below.with_name("config.yaml").write_text("base: b.yaml\n")
    file.write_text("base: a/config.yaml\n")
    return file


def _base_outside(file: Path) -> Path:
    file.rename("away.yaml")
    file.write_text("base: ../away.yaml\n")
    return file


def _link_to_another_name(file: Path) -> Path:
    file.rename(file.with_name("more.yaml"))
    file.symlink_to("more.yaml")
    return file


def _link_from_outside(file: Path) -> Path:
    Path("my.yaml").symlink_to(file)
    return Path("my.yaml")


def _folder_called_override(file: Path) -> Path:
    file.parent.rename("override me")
    return Path("override me", file.name)


def _under_a_config_of_the_users(file: Path) -> Path:
    Path("my.yaml").write_text(f"base: {_base_beside_it(file)}\nseed: 3\n")
    return Path("my.yaml")


DISGUISES = [_base_beside_it, _bases_below, _base_outside, _link_to_another_name, _link_from_outside]
DISGUISES += [_folder_called_override, _under_a_config_of_the_users]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_everything_that_the_config_of_a_run_leads_to_is_the_runs(here: Path, disguise: Callable[[Path], Path]) -> None:
    for key, set_code in {
        "model.generator.kind": lambda tree: tree["model"]["generator"].update(kind="beside:Net", norm={}),
        "evaluation.extractor": lambda tree: tree["evaluation"].update(extractor="beside:Extractor"),
    }.items():
        with TemporaryDirectory(dir=here) as folder, chdir(folder):
            run = written(Path("run"), "generator", None, {})
            tree = yaml.safe_load((run / "config.yaml").read_text())
            set_code(tree)
            (run / "config.yaml").write_text(yaml.safe_dump(tree))
            file = disguise(run / "config.yaml")
            with pytest.raises(UserError, match=rf"{key}.*beside:.*trust=True"):
                load_config(file)
            assert own_names(file) == set()
            assert load_config(file, trust=True)
            code = "beside:Net" if key.startswith("model") else "beside:Extractor"
            assert load_config(file, [f"{key}={code}"])  # the user names it himself


def test_the_scoring_process_builds_only_what_the_config_of_the_run_names(here: Path) -> None:
    run = written(here / "run", "generator", "beside:Net", {})
    measure = measure_of(tiny(here / "run"), torch.device("cpu"))
    with pytest.raises(UserError, match="beside:Net"):
        measure(checkpoint.checkpoint_folder(run, 1), 1)
    assert not (here / "canary").exists()


def test_an_extractor_that_a_run_names_is_not_imported(here: Path) -> None:
    run = written(here / "run", "generator", None, {})
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["evaluation"]["extractor"] = "beside:Extractor"
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="beside:Extractor"):
        _ = FinishedRun(run).extractor
    assert FinishedRun(run, trust=["beside:Extractor"]).extractor == "beside:Extractor"
    with pytest.raises(UserError, match="beside:Extractor"):
        load_config(run / "config.yaml")
    assert not (here / "canary").exists()


def test_with_consent_a_class_is_imported_and_anything_else_is_refused_before_it_is_called(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, (kind, options) in enumerate(CODE.items()):
        run = written(here / f"run{index}", "generator", kind, options(here / "canary"))
        code = main([*command_line("sample FILE --seeds 0", run), "--trust"])
        assert code == (0 if kind == "beside:Net" else 2)
        assert kind == "beside:Net" or "nn.Module" in capsys.readouterr().err
        assert (here / "canary").exists() == (kind == "beside:Net")
    assert orthogan.load(here / "run4", trust=True)(torch.zeros(1, 8)).shape == (1, 1, 32, 32)
    assert orthogan.load(here / "run4", trust=["beside:Net"]).latent_dim == 8
    with pytest.raises(UserError, match="beside:Net"):
        orthogan.load(here / "run4", trust=["beside:Other"])


@pytest.mark.parametrize(
    "command",
    [
        "train own.yaml model.init=FILE out=new --dry-run",
        "train empty.yaml TINY model.init=FILE model.generator.kind=beside:Net out=new --dry-run",
        "train RUN/config.yaml model.init=FILE out=new --dry-run --trust",
        "evaluate FILE --metrics pixel_path_length --samples 2 --data own.yaml",
    ],
)
def test_the_user_consents_by_naming_the_same_class(here: Path, command: str) -> None:
    own = Config.model_validate(tiny(here / "x").model_dump()).model_dump()
    own["model"]["generator"] |= {"kind": "beside:Net", "norm": {"kind": "none"}}
    (here / "own.yaml").write_text(yaml.safe_dump(own | {"out": None}))
    run = written(here / "run", "generator", "beside:Net", {})
    words = command_line(command, run)
    assert main(words) == 0
    assert (here / "canary").exists()
    if "own.yaml" in words:
        (here / "own.yaml").write_text("data: {source: sprites}\n")
        words = [word for word in words if not word.startswith("model.init")]
        assert "init" in command or main(words) == 2


STRANGE = [":x", "x:", ":", "..a:b", "a:b:c", "os:name", "math:pi", "builtins:dict", "json:JSONDecoder", "os:abort"]
STRANGE += ["a b:c", "os.path:join", "torch.nn:functional", "no_such_module:Net", "torch.nn:NoSuchClass", "a/b:c"]


@pytest.mark.parametrize("kind", STRANGE)
def test_names_of_anything_else_than_a_class_of_the_right_kind_are_refused_in_every_place(kind: str) -> None:
    for part, build in (
        ("generator", build_generator),
        ("discriminator", build_discriminator),
        ("classifier", build_classifier),
    ):
        task = ["task=classifier"] if part == "classifier" else []
        config = load_config(None, [*task, f"model.{part}.kind={json.dumps(kind)}"])
        with pytest.raises(UserError, match=rf"model\.{part}\.kind is "):
            build(config, num_classes=2)
    with pytest.raises(UserError, match="extractor is "):
        load_extractor(kind)
    with pytest.raises(UserError, match="study"):
        get_study(kind)
    with pytest.raises(UserError):
        open_model(kind)
    assert main(["sample", kind]) == 2
    assert main(["spectrum", kind]) == 2


def ready() -> nn.Module:
    return nn.Linear(2, 2)


def annotated_otherwise() -> dict[str, Tensor]:
    raise AssertionError("called")


@pytest.mark.parametrize("name", ["os:abort", "timeit:timeit", "subprocess:getoutput", "tempfile:mkdtemp"])
def test_a_function_of_the_standard_library_is_no_subject(name: str) -> None:
    with pytest.raises(UserError, match="cannot be called to create"):
        open_model(name)
    assert isinstance(open_model(f"{__name__}:ready").net, nn.Linear)


def test_a_module_that_fails_or_exits_while_it_is_imported_is_named(here: Path) -> None:
    for text, says in (("raise KeyError('k')", "KeyError"), ("import sys; sys.exit(3)", "SystemExit"), ("(", "Syntax")):
        (here / "failing.py").write_text(text)
        with pytest.raises(UserError, match=rf"failing:Net.*{says}"):
            open_model("failing:Net")


def test_no_file_in_the_current_folder_hides_an_installed_module(here: Path) -> None:
    (here / "colorsys.py").write_text(f"open({str(here / 'canary')!r}, 'w')")
    sys.modules.pop("colorsys", None)
    with pytest.raises(UserError, match=r"nn\.Module"):
        load_extractor("colorsys:rgb_to_hsv")
    assert not (here / "canary").exists()


def test_a_loaded_classifier_of_a_users_own_class_needs_consent_too(here: Path) -> None:
    run = written(here / "run", "classifier", "beside:Net", {})
    with pytest.raises(UserError, match="beside:Net"):
        load_classifier(run)
    assert not (here / "canary").exists()


FOREIGN_DATA = [
    {"source": "cifar10", "root": "stranger", "resolution": 32},
    {"source": "stl10", "root": "stranger"},
    {"source": "celeba", "root": "stranger"},
    {"source": "fashion-mnist", "path": "stranger"},
    {"source": "folder", "path": "stranger"},
    {"source": "array", "path": "stranger.npz"},
    {"source": "dsprites", "path": "stranger.npz"},
]
OF_DATA = [
    ("generator", "--metrics fid --samples 8"),
    ("generator", "--metrics fid --samples 8 --split test"),
    ("generator", "--metrics neural_divergence --samples 8"),
    ("generator", "--metrics lipschitz --samples 8"),
    ("classifier", "--metrics accuracy"),
    ("classifier", "--metrics complexity"),
]


@pytest.mark.parametrize("data", FOREIGN_DATA, ids=lambda data: data["source"])
@pytest.mark.parametrize(("part", "options"), OF_DATA)
def test_evaluate_does_not_open_the_data_that_a_file_of_weights_names(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: dict[str, Any],
    part: str,
    options: str,
) -> None:
    if (part, data["source"]) == ("classifier", "celeba"):
        pytest.skip("celeba has no classes")
    opened: list[str] = []

    def note(config: Any, **more: Any) -> None:
        opened.append(config.source)
        raise UserError("opened")

    for module in (
        "cli._scores.open_configured",
        "cli._scores.open_held_out",
        "training.classifier.task.open_configured",
    ):
        monkeypatch.setattr(f"orthogan.{module}", note)
    run = written(here / "run", part, None, {}, data=data)
    alone = here / "alone"
    alone.mkdir()
    for file in checkpoint.checkpoint_folder(run, 1).glob("*.safetensors"):
        file.rename(alone / file.name)
    file = alone / f"{CLASSIFIER if part == 'classifier' else RAW}.safetensors"
    words = ["evaluate", str(file), *options.split()]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert data["source"] in said
    assert "stranger" in said
    assert "--trust" in said
    assert opened == []
    assert sorted(path.name for path in here.iterdir()) == ["alone", "beside.py", "run"]
    assert main([*words, "--trust"]) == 2
    assert capsys.readouterr().err.strip().endswith("opened")
    assert opened == [data["source"]]


def test_evaluate_opens_the_data_of_a_run_but_downloads_nothing_for_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*arguments: object, **more: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    run = written(here / "run", "generator", None, {}, data={"source": "cifar10", "root": "stranger"})
    assert main(["evaluate", str(run), "--samples", "8"]) == 2
    said = capsys.readouterr().err
    assert "using the images of the run: data.source = 'cifar10', root = 'stranger'" in said
    assert "data.download is false" in said
    assert not (here / "stranger").exists()


EVERY_KEY = {
    "model.generator.kind": "beside:Net",
    "model.discriminator.kind": "beside:Net",
    "model.generator.norm": {"kind": "beside:Net"},
    "model.discriminator.penalties": [{"kind": "beside:Net"}],
    "model.generator.gradient_transforms": [{"kind": "beside:Net"}],
    "loss.kind": "beside:Net",
    "loss.gradient_penalty.kind": "beside:Net",
    "loss.latent_penalty": {"kind": "beside:Net", "weight": 0.1},
    "optimizer.generator": {"kind": "beside:Net"},
    "training.schedule": {"kind": "beside:Net"},
    "logging.trackers": ["tensorboard", "beside:Net"],
    "data.source": "beside:Net",
    "augment.kind": "beside:Net",
    "evaluation.metrics": ["fid", "beside:Net"],
    "evaluation.extractor": "beside:Extractor",
}


def keys_of_names(section: type[Section], prefix: str = "") -> Iterator[str]:
    """The keys of a config that may hold ``module:Name``."""
    for name, field in section.model_fields.items():
        annotation = field.rebuild_annotation()
        inner = section_class(annotation)
        if inner is not None:
            yield from keys_of_names(inner, f"{prefix}{name}.")
        elif (name == "kind" and not literals(annotation)) or marker_of(annotation, MayNameCode) is not None:
            yield f"{prefix}{name}"


def test_every_key_that_may_name_code_is_among_the_cases() -> None:
    nets = re.compile(r"(generator|discriminator|classifier)\.")
    tried = {f"{key}.kind" if isinstance(value, dict | list) else key for key, value in EVERY_KEY.items()}
    tried |= EVERY_KEY.keys() | {"evaluation.best"}  # the best one is among the metrics
    assert {nets.sub("net.", key) for key in keys_of_names(Config)} <= {nets.sub("net.", key) for key in tried}


@pytest.mark.parametrize("key", EVERY_KEY)
def test_a_run_may_name_code_under_no_key_whatever_reads_it(
    here: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(here / "run", "generator", None, {})
    tree = yaml.safe_load((run / "config.yaml").read_text())
    *sections, last = key.split(".")
    section = tree
    for name in sections:
        section = section[name]
    section[last] = EVERY_KEY[key]
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    for command in (["train", "run/config.yaml", "out=other"], ["train", "run/config.yaml", "out=other", "--dry-run"]):
        assert main(command) == 2
        assert "--trust" in capsys.readouterr().err
    assert main(["config", "run/config.yaml"]) == 0
    assert "beside:" in capsys.readouterr().out
    assert not (here / "canary").exists()
    assert not (here / "other").exists()
