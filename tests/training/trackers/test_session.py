"""Other trackers: what each is sent, that a resumed run continues it without repeating steps, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.drawing.grid import save_png
from orthogan.errors import UserError
from orthogan.training import train
from orthogan.training.trackers.session import STATE, Trackers, parameters_of
from orthogan.training.trackers.tracker import TRACKERS
from tests.fixtures.runs import tiny


class Service:
    """What all fakes were sent: starts, parameters, points (run, curve, step, value), pictures, ends."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.parameters: dict[str, Any] = {}
        self.points: list[tuple[str, str, int, float]] = []
        self.pictures: list[tuple[str, int]] = []
        self.ended = 0
        self.fails = False

    def begin(self, known: str | None, **options: Any) -> str:
        self.starts.append({"known": known, **options})
        return known or f"id{len(self.starts)}"

    def point(self, run: str, name: str, step: int, value: Any) -> None:
        if self.fails:
            raise ConnectionError("no network")
        if isinstance(value, str):
            self.pictures.append((name, step))
        else:
            self.points.append((run, name, step, value))

    def end(self) -> None:
        self.ended += 1


def fake_wandb(service: Service) -> dict[str, Any]:
    def init(project: str, *, name: str, dir: str, resume: str, id: str | None = None) -> Any:
        assert resume == "allow"
        key = service.begin(id, project=project, name=name)

        def log(values: dict[str, Any], step: int | None = None) -> None:
            assert step is None  # the curves have an axis of their own
            for curve, value in values.items():
                if curve != "step":
                    service.point(key, curve, values["step"], value)

        axis = {"step": None, "*": "step"}
        return SimpleNamespace(
            id=key,
            log=log,
            finish=service.end,
            define_metric=lambda name, step_metric=None: axis.pop(name) == step_metric or pytest.fail(name),
        )

    config = SimpleNamespace(update=lambda values, allow_val_change: service.parameters.update(values))
    return {"wandb": {"init": init, "config": config, "Image": str}}


def fake_trackio(service: Service) -> dict[str, Any]:
    def init(project: str, *, name: str, resume: str) -> Any:
        key = service.begin(name if resume == "allow" else None, project=project, name=name)

        def log(values: dict[str, Any], step: int) -> None:
            for curve, value in values.items():
                service.point(key, curve, step, value)

        return SimpleNamespace(name=key, log=log, finish=service.end)

    config = SimpleNamespace(update=lambda values, allow_val_change: service.parameters.update(values))
    return {"trackio": {"init": init, "config": config, "Image": str}}


def fake_mlflow(service: Service) -> dict[str, Any]:
    now: list[str] = []

    def start_run(run_id: str | None = None, *, experiment_id: str, run_name: str, **_: Any) -> Any:
        now.append(service.begin(run_id, project=experiment_id, name=run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=now[-1]))

    def log_metrics(values: dict[str, float], step: int) -> None:
        for curve, value in values.items():
            assert "[" not in curve  # which the real one refuses
            service.point(now[-1], curve, step, value)

    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    return {
        "mlflow": {
            "search_experiments": lambda filter_string: [],
            "create_experiment": lambda name, **_: name,
            "start_run": start_run,
            "log_metrics": log_metrics,
            "log_params": service.parameters.update,
            "log_image": lambda image, key, step: service.point(now[-1], key, step, str(image.size)),
            "end_run": service.end,
            "utils": SimpleNamespace(validation=limits),
        }
    }


def fake_aim(service: Service) -> dict[str, Any]:
    class Run:
        def __init__(self, repo: str, run_hash: str | None = None) -> None:
            self.hash = service.begin(run_hash, project=None, name=None)
            self.name = self.experiment = ""

        def __setitem__(self, key: str, values: dict[str, Any]) -> None:
            assert key == "hparams"
            service.parameters.update(values)

        def track(self, value: Any, name: str, step: int) -> None:
            service.point(self.hash, name, step, value)

        def close(self) -> None:
            service.starts[-1] |= {"project": self.experiment, "name": self.name}
            service.end()

    return {"aim": {"Run": Run, "Image": lambda image, caption: str(image.size)}}


def fake_comet(service: Service) -> dict[str, Any]:
    def start(project_name: str, *, mode: str, experiment_key: str | None = None) -> Any:
        assert mode == ("get" if experiment_key else "create")
        key = service.begin(experiment_key, project=project_name, name=None)
        return SimpleNamespace(
            get_key=lambda: key,
            set_name=lambda name: service.starts[-1].update(name=name),
            set_step=lambda step: None,
            log_parameters=service.parameters.update,
            log_metric=lambda name, value, step: service.point(key, name, step, value),
            log_image=lambda path, name, step: service.point(key, name, step, path),
            end=service.end,
        )

    return {"comet_ml": {"start": start, "__version__": "3.50.0"}}


FAKES = {"wandb": fake_wandb, "trackio": fake_trackio, "mlflow": fake_mlflow, "aim": fake_aim, "comet": fake_comet}


def faked(name: str, patch: pytest.MonkeyPatch) -> Service:
    service = Service()
    for package, members in FAKES[name](service).items():
        module = ModuleType(package)
        module.__spec__ = ModuleSpec(package, None)
        module.__dict__.update(members)
        patch.setitem(sys.modules, package, module)
    return service


@pytest.fixture(params=sorted(FAKES))
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Service]:
    return request.param, faked(request.param, monkeypatch)


def opened(name: str, run: Path, **options: Any) -> Trackers:
    said = options.pop("said", [])
    return Trackers(["tensorboard", name], run, config={"a": {"b": 1}}, warn=said.append, **options)


def test_a_resumed_run_continues_and_repeats_no_step(named: tuple[str, Service], tmp_path: Path) -> None:
    name, service = named
    picture = save_png(Image.fromarray(np.zeros((4, 6, 3), np.uint8)), tmp_path / "p.png")
    first = opened(name, tmp_path, fresh=True)
    for step in (0, 10, 20):
        first.log({"loss/G": step / 10, "loss/D": 1.0}, step)
    first.image("samples", picture, 20)
    first.log({"score/FD[x]": 5.0}, 10)  # a score that was computed in the background
    first.close()  # killed after the checkpoint of step 10
    second = opened(name, tmp_path, fresh=False)
    second.log({"loss/G": 2.0, "loss/D": 1.0}, 20)
    second.image("samples", picture, 20)
    second.log({"loss/G": 3.0, "loss/D": 1.0, "loss/new": 7.0}, 30)
    second.close()
    key = service.starts[0]["known"] or json.loads((tmp_path / STATE).read_text())[name]["id"]
    assert [one["known"] for one in service.starts] == [None, key]
    assert service.ended == 2
    assert {run for run, *_ in service.points} == {key}
    curve = [(step, value) for _, tag, step, value in service.points if tag == "loss/G"]
    assert curve == [(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)]
    assert [tag for _, tag, *_ in service.points if tag not in ("loss/G", "loss/D")] == [
        TRACKERS.get(name)().name_of("score/FD[x]"),
        "loss/new",
    ]
    assert service.pictures == [("samples", 20)]
    assert service.parameters == {"a.b": 1}
    assert (service.starts[0]["project"], service.starts[0]["name"]) == ("orthogan", tmp_path.name)
    # a new run in the same folder is a new one there, too
    opened(name, tmp_path, fresh=True).close()
    assert service.starts[2]["known"] is None


def test_a_tracker_that_fails_is_left_alone_and_the_run_goes_on(named: tuple[str, Service], tmp_path: Path) -> None:
    name, service = named
    said: list[str] = []
    trackers = opened(name, tmp_path, fresh=True, said=said)
    trackers.log({"loss/G": 1.0}, 1)
    service.fails = True
    trackers.log({"loss/G": 2.0}, 2)
    trackers.log({"loss/G": 3.0}, 3)
    trackers.close()
    assert len(said) == 1
    assert said[0].startswith(f"{name} failed, so nothing more is sent to it in this session")
    assert not trackers
    assert json.loads((tmp_path / STATE).read_text())[name]["last"] == {"loss/G": 1}


def test_a_training_sends_losses_scores_and_pictures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = faked("wandb", monkeypatch)
    words = ["training.steps=2", "logging.every=1", "logging.trackers=[wandb]", "logging.project=mine"]
    run = train(tiny(tmp_path / "run", *words, "logging.samples_every=1"))
    assert not (run / "tensorboard").exists()
    (start,) = service.starts
    assert (start["project"], start["name"]) == ("mine", "run")
    assert service.parameters["training.steps"] == 2
    tags = {tag for _, tag, *_ in service.points}
    assert {"loss/G", "loss/D"} <= tags
    assert not [tag for tag in tags if tag.startswith("spectrum/")]
    assert [step for _, tag, step, _ in service.points if tag == "loss/G"] == [1, 2]
    assert [step for tag, step in service.pictures if tag == "samples"] == [0, 1, 2]
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    logged = [record["G/loss"] for record in records if "G/loss" in record]
    assert logged == [value for _, tag, _, value in service.points if tag == "loss/G"]


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "orthogan.training.trackers.tracker.find_spec", lambda name: None if name == "aim" else real(name)
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "demo", "out=run", "logging.trackers=[aim]"]) == 2
    assert "logging.trackers: aim is not installed; run: pip install aim, or omit it" in capsys.readouterr().err
    assert not Path("run").exists()
    with pytest.raises(UserError, match=r"logging\.trackers"):
        load_config(None, ["logging.trackers=[wandbb]", "out=run"])


def test_a_tracker_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faked("aim", monkeypatch)

    def refuse(repo: str) -> None:
        raise PermissionError("no login")

    monkeypatch.setattr(sys.modules["aim"], "Run", refuse)
    with pytest.raises(UserError, match=r"aim cannot be started: .*no login.*offline mode"):
        opened("aim", tmp_path, fresh=True)
    (tmp_path / STATE).write_text('{"aim": 3}')
    with pytest.raises(UserError, match=r"trackers\.json: is damaged"):
        opened("aim", tmp_path, fresh=False)


def test_a_config_is_flattened_to_plain_values() -> None:
    assert parameters_of({"a": {"b": 1, "c": [1, 2], "d": None}, "e": "x"}) == {"a.b": 1, "a.c": "[1, 2]", "e": "x"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["comet", "mlflow", "trackio", "wandb"])
def test_the_real_one_works_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip(TRACKERS.get(name).package, reason="needs the extra trackers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    monkeypatch.setenv("COMET_OFFLINE_DIRECTORY", str(tmp_path / "comet"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    picture = save_png(Image.fromarray(np.zeros((4, 6, 3), np.uint8)), tmp_path / "p.png")
    for steps, fresh in (((0, 10, 20), True), ((20, 30), False)):
        trackers = opened(name, tmp_path, fresh=fresh)
        for step in steps:
            trackers.log({"loss/G": step / 10, "score/FD[x]": 1.0}, step)
        trackers.image("samples", picture, steps[-1])
        assert trackers
        trackers.close()
    key = json.loads((tmp_path / STATE).read_text())[name]["id"]
    if name == "mlflow":
        history = module.MlflowClient().get_metric_history(key, "loss/G")
        assert [(one.step, one.value) for one in history] == [(0, 0.0), (10, 1.0), (20, 2.0), (30, 3.0)]
        assert module.get_run(key).data.params["a.b"] == "1"
    elif name == "comet":
        assert len([*tmp_path.glob(f"comet/{key}*.zip")]) == 2
    elif name == "wandb":
        assert len([*tmp_path.glob("wandb/offline-run-*/*.wandb")]) == 2
