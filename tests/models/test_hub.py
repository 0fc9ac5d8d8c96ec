"""Models of the Hugging Face Hub, against a fake of it on this machine."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin, constants
from safetensors import safe_open

import orthogan
from orthogan.cli.main import main
from orthogan.errors import UserError
from orthogan.io.weights import read_sealed
from orthogan.models import hub as ours
from orthogan.models.build import build_generator
from orthogan.models.card import read_card
from orthogan.models.hub import fetch, parse_hub_name
from orthogan.models.open import open_model
from orthogan.models.protocol import Generator
from orthogan.models.saved import save_generator
from orthogan.models.shipped import shipped_folder
from tests.fixtures.hub import Hub, the_hub
from tests.fixtures.runs import ROOT, environment

SHIPPED = "sprites-sngan"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with the_hub(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    config = orthogan.load_config(None, ["model.generator.channels=4", "model.generator.latent_dim=8", "out=secret"])
    net = build_generator(config, num_classes=0)
    return net.save_pretrained(tmp_path_factory.mktemp("made") / "tiny", config=config, license="mit")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("user/model", ("user/model", None)),
        ("user/my.model-2@v1.0", ("user/my.model-2", "v1.0")),
        ("user/model@refs/pr/1", ("user/model", "refs/pr/1")),
        *((text, None) for text in ("model", "a/b/c", "./user/model", "/user/model", "user/", "user/m.safetensors")),
        *(
            (text, None)
            for text in ("user/m.pkl", "user/m.yaml", "user/..", "us er/m", "user/m@", "user/m@-x", "a:b/c")
        ),
    ],
)
def test_what_is_a_name_of_the_hub(text: str, name: tuple[str, str | None] | None) -> None:
    assert parse_hub_name(text) == name


def test_a_model_is_downloaded_once_and_only_its_weights_and_card(hub: Hub, made: Path) -> None:
    evil = {"setup.py": b"raise SystemExit", "pytorch_model.bin": b"x", "config.json": b"{}", "big.safetensors": b"x"}
    sha = hub.put("user/model", {**content(made), **evil}, "main", "v1")
    opened = open_model("user/model")
    assert same(opened.generator, orthogan.load(made))
    assert (opened.name, opened.title) == ("user/model", "user/model")
    assert {file.name for file in fetch(ours.HubName("user/model")).iterdir()} == set(content(made))
    got = [path.rpartition("/")[2] for verb, path in hub.requests if verb == "GET" and "/resolve/" in path]
    assert sorted(got) == sorted(content(made))
    hub.requests.clear()
    orthogan.load("user/model")
    assert hub.requests == []
    for revision in ("v1", sha):
        assert same(orthogan.load(f"user/model@{revision}"), opened.generator)
    assert not [path for _, path in hub.requests if "/resolve/" in path]
    assert hub.writes() == []


def test_a_revision_is_chosen(hub: Hub, made: Path, tmp_path: Path) -> None:
    hub.put("user/model", content(made), "v1")
    net = orthogan.load(made)
    with torch.no_grad():
        next(net.parameters()).add_(1)
    hub.put("user/model", content(net.save_pretrained(tmp_path / "second")))
    assert same(Generator.from_pretrained("user/model", revision="v1"), orthogan.load(made))
    assert same(Generator.from_pretrained("user/model"), net)
    with pytest.raises(UserError, match=r"user/model@v3: .* has no branch, tag or commit 'v3'"):
        orthogan.load("user/model@v3")


def test_a_local_path_and_a_shipped_name_win(hub: Hub, made: Path) -> None:
    net = orthogan.load(f"pretrained/{SHIPPED}")
    assert net.latent_dim != 8
    shutil.copytree(made, "user/model")
    assert orthogan.load("user/model").latent_dim == 8
    with pytest.raises(UserError, match="no such run"):
        orthogan.load("user/other")  # user/ is a folder here
    assert hub.requests == []


def test_errors_name_the_reason(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("user/language", {"model.safetensors": b"x", "README.md": b"# x"})
    hub.put("user/gated", content(made))
    hub.put("user/damaged", content(made) | {"generator.safetensors": content(made)["generator.safetensors"][:-4]})
    hub.gated.add("user/gated")
    for name, words in {
        "user/absent": "user/absent: no such run.*no model of this name that you may read.*HF_TOKEN",
        "user/gated": "asks you to accept its terms",
        "user/language": "not an orthogan model.*has no generator.safetensors",
        "user/damaged": "not a readable safetensors file",
    }.items():
        with pytest.raises(UserError, match=words):
            orthogan.load(name)
    assert main(["sample", "user/absent"]) == 2
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UserError, match=r"needs the package huggingface_hub: pip install .*\[hub\]"):
            orthogan.load("user/new")


def test_the_cache_is_used_without_a_connection(hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("user/model", content(made))
    orthogan.load("user/model")
    for state in ("HF_HUB_OFFLINE", "ENDPOINT"):
        with monkeypatch.context() as patch:
            patch.setattr(constants, state, True if state == "HF_HUB_OFFLINE" else "http://127.0.0.1:9")
            fetch.cache_clear()
            hub.requests.clear()
            assert same(orthogan.load("user/model"), orthogan.load(made))
            why = "HF_HUB_OFFLINE is set" if state == "HF_HUB_OFFLINE" else "http://127.0.0.1:9 cannot be used"
            with pytest.raises(UserError, match=why):
                orthogan.load("user/other")
            assert hub.requests == []


def test_code_that_a_file_names_needs_consent(hub: Hub, tmp_path: Path) -> None:
    config = orthogan.load_config(None, ["model.generator.channels=4"])
    tree = config.model_dump()
    tree["model"]["generator"]["kind"] = "evil_module:Net"
    save_generator(tmp_path / "generator.safetensors", build_generator(config, num_classes=0), config=tree)
    hub.put("user/evil", {"generator.safetensors": (tmp_path / "generator.safetensors").read_bytes()})
    with pytest.raises(UserError, match="evil_module"):
        orthogan.load("user/evil")


def test_a_saved_folder_has_all_that_is_needed(made: Path, tmp_path: Path) -> None:
    _, about = read_sealed(made / "generator.safetensors", needed=True)
    assert (about["format"], about["orthogan-format"]) == ("pt", "orthogan-generator-1")
    assert json.loads(about["config"])["out"] is None
    card = read_card(made / "README.md")
    assert (card.block["license"], card.block["library_name"]) == ("mit", "orthogan")
    assert 'orthogan.load("tiny")' in card.text
    (made / "README.md").write_text("mine")
    again = orthogan.load(made).save_pretrained(made)
    assert (again / "README.md").read_text() == "mine"
    (made / "README.md").write_text(card.markdown())
    with pytest.raises(UserError, match="config is not known"):
        build_generator(orthogan.load_config(None, []), num_classes=0).save_pretrained(tmp_path / "new")
    with pytest.raises(UserError, match="not a StyleGAN2Generator"):
        orthogan.models.StyleGAN2Generator.from_pretrained(made)


def test_files_of_earlier_versions_load(made: Path) -> None:
    old = shipped_folder() / SHIPPED / "generator.safetensors"
    with safe_open(old if old.is_file() else shipped_folder() / f"{SHIPPED}.safetensors", "pt") as file:
        about = file.metadata()
    assert about["format"] == "orthogan-generator-1"
    assert "orthogan-format" not in about
    assert orthogan.load(SHIPPED).saved is not None


def test_a_generator_is_pushed_and_a_card_stays(hub: Hub, made: Path) -> None:
    net = orthogan.load(made)
    address = net.push_to_hub("user/model", private=True, commit_message="first")
    assert (hub.messages, hub.private["user/model"] in (True, "private")) == (["first"], True)
    assert hub.refs["user/model"]["main"] in address
    assert 'orthogan.load("user/model")' in hub.files("user/model")["README.md"].decode()
    assert same(Generator.from_pretrained("user/model"), net)
    assert "Bearer hf_test" in hub.tokens
    hub.put("user/model", {**hub.files("user/model"), "README.md": b"# mine"})
    with torch.no_grad():
        next(net.parameters()).add_(1)
    net.push_to_hub("user/model")
    assert hub.files("user/model")["README.md"] == b"# mine"
    fetch.cache_clear()
    assert same(Generator.from_pretrained("user/model"), net)
    for name in ("model", "user/model@v1", "a/b/c"):
        with pytest.raises(UserError, match="is user/model"):
            net.push_to_hub(name)


def test_saving_can_push_too(hub: Hub, made: Path, tmp_path: Path) -> None:
    net = orthogan.load(made)
    hub.put("user/new", {}, "main", "next")
    told = {"branch": "next", "commit_message": "both", "token": "hf_other", "create_pr": False}
    folder = net.save_pretrained(tmp_path / "saved", repo_id="user/new", push_to_hub=True, private=True, **told)
    assert content(folder) == hub.files("user/new", "next")
    assert (hub.files("user/new"), hub.messages) == ({}, ["both"])
    assert "Bearer hf_other" in hub.tokens
    assert "Bearer hf_test" not in hub.tokens
    assert 'orthogan.load("user/new")' in (folder / "README.md").read_text()
    with pytest.raises(UserError, match="private needs push_to_hub=True"):
        net.save_pretrained(tmp_path / "saved", private=True)
    with pytest.raises(UserError, match="repo_id needs push_to_hub=True"):
        net.save_pretrained(tmp_path / "saved", repo_id="user/new")
    with pytest.raises(UserError, match="is user/model"):
        net.save_pretrained(tmp_path / "none", push_to_hub=True)
    with pytest.raises(TypeError, match="privat"):
        net.save_pretrained(tmp_path / "none", repo_id="user/new", push_to_hub=True, privat=True)
    assert not (tmp_path / "none").exists()


def test_a_download_takes_the_arguments_of_the_mixin(hub: Hub, made: Path, tmp_path: Path) -> None:
    hub.put("user/model", content(made))
    cache = tmp_path / "other"
    with pytest.raises(UserError, match="not in the cache, and local_files_only=True"):
        Generator.from_pretrained("user/model", local_files_only=True)
    assert hub.requests == []
    Generator.from_pretrained(pretrained_model_name_or_path="user/model", cache_dir=cache, token=False)
    assert (list(cache.glob("models--user--model")), hub.tokens) == ([cache / "models--user--model"], {None})
    assert not (tmp_path / "cache" / "models--user--model" / "snapshots").exists()
    hub.requests.clear()
    net = Generator.from_pretrained("user/model", cache_dir=cache, local_files_only=True)
    assert (same(net, orthogan.load(made)), hub.requests) == (True, [])
    Generator.from_pretrained("user/model", cache_dir=cache, token="hf_mine")
    assert not any("safetensors" in path for command, path in hub.requests if command == "GET")
    for _ in range(2):
        hub.requests.clear()
        Generator.from_pretrained("user/model", cache_dir=cache, force_download=True)
        assert any("generator.safetensors" in path for command, path in hub.requests if command == "GET")
    assert "Bearer hf_mine" in hub.tokens


@pytest.mark.parametrize("method", ["from_pretrained", "save_pretrained", "push_to_hub"])
def test_arguments_have_the_names_and_defaults_of_the_mixin(method: str) -> None:
    theirs = dict(inspect.signature(getattr(PyTorchModelHubMixin, method)).parameters)
    ours = dict(inspect.signature(getattr(Generator, method)).parameters)
    differ = {"model_kwargs", "model_card_kwargs", "allow_patterns", "ignore_patterns", "delete_patterns"}
    assert set(theirs) - differ <= set(ours)
    positional = [name for name, parameter in theirs.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    for name in set(theirs) - differ - {"commit_message"}:
        assert (ours[name].default or None) == (theirs[name].default or None), name


def test_the_variables_of_the_hub_are_honored(hub: Hub, made: Path, tmp_path: Path) -> None:
    hub.put("user/model", content(made))
    seen = environment() | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    code = "import sys; from orthogan.cli.subjects import check_subject as c; c('user/model'); print(*sys.modules)"
    for offline in ("0", "1"):
        seen["HF_HUB_OFFLINE"] = offline
        hub.requests.clear()
        done = subprocess.run([sys.executable, "-c", code], env=seen, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert bool(hub.requests) == (offline == "0")
        assert not {"torch", "numpy"} & set(done.stdout.split())
    assert list((tmp_path / "home" / "hub").glob("models--user--model/snapshots/*/generator.safetensors"))
