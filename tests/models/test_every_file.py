"""Model files that are damaged, strange or hostile: each is named, nothing large is built, nothing wrong is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from orthogan.cli.main import main
from orthogan.config.files import load_config
from orthogan.errors import UserError
from orthogan.io.checkpoint import Part, save
from orthogan.io.weights import HASH, read_metadata, read_tensors
from orthogan.models.build import build_classifier, build_generator
from orthogan.models.open import load_classifier, load_generator, open_model
from orthogan.models.saved import CLASSIFIER_FORMAT, RAW, metadata, save_generator
from tests.fixtures.runs import ROOT, tiny

SHIPPED = sorted((ROOT / "pretrained").glob("*/generator.safetensors"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small whole generator."""
    config = tiny(tmp_path)
    save_generator(tmp_path / "g.safetensors", build_generator(config, num_classes=0), config=config)
    return tmp_path / "g.safetensors"


def rewrite(file: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    """Change tensors and metadata, as somebody else's tool would: without a hash."""
    tensors, about = {name: tensor.clone() for name, tensor in read_tensors(file).items()}, read_metadata(file)
    del about[HASH]
    change(tensors, about)
    save_file(tensors, file, about)


def configured(**keys: Any) -> Callable[[dict[str, Tensor], dict[str, str]], object]:
    """Sets keys of ``model.generator`` in the config of the file."""

    def change(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        tree = json.loads(about["config"])
        tree["model"]["generator"] |= keys
        about["config"] = json.dumps(tree)

    return change


def without(key: str) -> Callable[[dict[str, Tensor], dict[str, str]], object]:
    return lambda tensors, about: about.pop(key)


def about(**keys: str) -> Callable[[dict[str, Tensor], dict[str, str]], object]:
    return lambda tensors, about: about.update(keys)


DAMAGE = {
    "no config": (without("config"), "do not contain config"),
    "no num_classes": (without("num_classes"), "do not contain num_classes"),
    "no format": (without("orthogan-format"), "does not contain an orthogan generator"),
    "cut config": (about(config='{"seed": 1'), "not valid JSON"),
    "deep config": (about(config="[" * 100_000), "not valid JSON"),
    "a list": (about(config="[]"), "not a mapping"),
    "a number": (about(config="3"), "not a mapping"),
    "null": (about(config="null"), "not a mapping"),
    "unknown key": (about(config='{"sead": 1}'), "sead"),
    "sections of other types": (about(config='{"model": 3, "data": [1]}'), "model"),
    "num_classes x": (about(num_classes="x"), "num_classes"),
    "num_classes -1": (about(num_classes="-1"), "num_classes"),
    "num_classes 1.5": (about(num_classes="1.5"), "num_classes"),
    "num_classes empty": (about(num_classes=""), "num_classes"),
    "num_classes 1e9": (about(num_classes="1000000000"), "num_classes"),
    "num_classes superscript": (about(num_classes="\u00b2"), "num_classes"),
    "num_classes 999999": (about(num_classes="999999"), "match|larger"),
    "class_names no JSON": (about(class_names="cat, dog"), "class_names"),
    "class_names numbers": (about(class_names="[1, 2]"), "class_names"),
    "class_names a mapping": (about(class_names='{"a": 1}'), "class_names"),
    "class_names too many": (about(class_names='["a", "b"]'), "class_names"),
    "width 1e9": (configured(channels=10**9), "channels|larger"),
    "width 5000": (configured(channels=5000), "larger"),
    "latent 1e9": (configured(latent_dim=10**9), "latent_dim|larger"),
    "latent 65536": (configured(latent_dim=65536), "latent_dim|larger"),
    "other kind": (configured(kind="stylegan2"), "do not match"),
    "unknown kind": (configured(kind="sgnan"), "sgnan"),
    "an option of a wrong type": (configured(kind="eigengan", options={"dims": "many"}), "eigengan"),
    "a huge option": (configured(kind="eigengan", options={"dims": 10**12}), "generator"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_metadata_are_named(file: Path, name: str) -> None:
    change, says = DAMAGE[name]
    rewrite(file, change)
    with pytest.raises(UserError, match=says):
        load_generator(file)
    assert main(["sample", str(file), "--out", str(file.with_name("never.png"))]) == 2
    assert not file.with_name("never.png").exists()


@pytest.mark.parametrize("kind", ["wrn-99999-10", "wrn-10-99999", "densenet100", "wrn-999999-1"])
def test_a_classifier_much_larger_than_its_file_is_not_built(tmp_path: Path, kind: str) -> None:
    config = load_config(None, ["task=classifier", "model.classifier.kind=mlp", "model.classifier.channels=4"])
    tensors = build_classifier(config, num_classes=3).state_dict()
    tree = config.model_dump()
    tree["model"]["classifier"]["kind"] = kind
    save_file(tensors, tmp_path / "c.safetensors", metadata(tree, 3, {}, form=CLASSIFIER_FORMAT))
    with pytest.raises(UserError, match=r"larger|fit|depth|cannot be created"):
        load_classifier(tmp_path / "c.safetensors")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_tensors_of_another_sort_of_number_are_refused(file: Path, dtype: torch.dtype) -> None:
    rewrite(file, lambda tensors, about: tensors.update({k: t.to(dtype) for k, t in tensors.items()}))
    with pytest.raises(UserError, match=rf"g\.safetensors.*{dtype}"):
        load_generator(file)
    for command in ("sample", "spectrum", "discover"):
        assert main([command, str(file)]) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_floating_point_types_are_converted(file: Path, dtype: torch.dtype) -> None:
    rewrite(file, lambda tensors, about: tensors.update({k: t.to(dtype) for k, t in tensors.items()}))
    assert all(p.dtype == torch.float32 for p in load_generator(file).parameters())


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_model_has_its_hash_and_a_flipped_bit_is_found(shipped: Path, tmp_path: Path) -> None:
    copy = tmp_path / shipped.name
    data = bytearray(shipped.read_bytes())
    data[-1000] ^= 1
    copy.write_bytes(data)
    with pytest.raises(UserError, match=rf"{shipped.name}: damaged"):
        load_generator(copy)
    assert main(["sample", str(copy), "--out", str(tmp_path / "never.png")]) == 2


def test_every_bit_of_the_tensors_counts(file: Path) -> None:
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in range(start, len(whole), max(1, (len(whole) - start) // 40)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)
        with pytest.raises(UserError, match=r"g\.safetensors: damaged"):
            load_generator(file)


def test_a_file_of_a_checkpoint_is_checked_against_its_record_also_without_a_hash_of_its_own(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    net = build_generator(config, num_classes=0)
    folder = save(tmp_path, 1, {RAW: Part(net.state_dict(), metadata(config, 0, {}))}, {})
    file = folder / f"{RAW}.safetensors"
    load_generator(file)
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"generator\.safetensors: its content has changed"):
        load_generator(file)
    alone = shutil.copy(file, tmp_path / "alone.safetensors")
    load_generator(alone)  # nothing vouches for it


@pytest.mark.parametrize(
    "put",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text('{"files": ' * 100_000),
        lambda path: path.write_text('{"files": {"net.safetensors": []}}'),
        lambda path: (path.touch(), os.truncate(path, 1 << 33)),
    ],
)
def test_a_strange_state_json_beside_a_file_vouches_for_nothing(
    file: Path, tmp_path: Path, put: Callable[[Path], object]
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(file, alone / "net.safetensors")
    put(alone / "state.json")
    assert load_generator(alone / "net.safetensors").latent_dim == load_generator(file).latent_dim


def test_loaded_nets_ask_for_no_gradients_and_can_be_made_to(file: Path) -> None:
    net = load_generator(file)
    assert not any(p.requires_grad for p in net.parameters())
    net(net.sample_latent(2, seed=0)).numpy()
    net.requires_grad_(True)
    net(net.sample_latent(2, seed=0)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


ODD = [
    "training",
    "forward",
    "_modules",
    "_parameters",
    "weight",
    "__class__",
    "a.training",
    "",
    ".",
    "type",
    "_buffers",
]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_tensors_may_have_any_name_in_a_spectrum(tmp_path: Path, suffix: str) -> None:
    tensors = {name: torch.eye(3) for name in ODD}
    path = tmp_path / f"odd{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    net = open_model(path).net
    assert len(list(net.children())) == len(ODD)
    assert main(["spectrum", str(path)]) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "tensor",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.empty(3, 3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)]),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    ],
)
def test_tensors_that_are_no_dense_arrays_are_named(tmp_path: Path, tensor: Callable[[], Tensor]) -> None:
    torch.save({"a": torch.eye(2), "odd": tensor()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: .*(odd|more than tensors)"):
        _ = open_model(tmp_path / "x.pth").net
    assert main(["spectrum", str(tmp_path / "x.pth")]) == 2


def test_control_characters_of_a_name_do_not_reach_the_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = file.rename(file.with_name("a\x1b[2J\nb.safetensors"))
    evil.write_bytes(b"junk")
    for command in ("sample", "spectrum", "traverse", "discover", "disentangle", "evaluate"):
        assert main([command, str(evil)]) == 2
        said = capsys.readouterr().err
        assert "\x1b" not in said
        assert r"\x1b[2J\nb.safetensors" in said


FUZZ = settings(max_examples=60, deadline=None)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["sngan", "os:system"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["task", "seed", "data", "data.resolution", "data.channels", "model", "model.generator", "model.generator.kind"]
KEYS += ["model.generator.channels", "model.generator.latent_dim", "model.generator.options", "model.generator.norm"]
KEYS += ["model.generator.norm.kind", "model.generator.norm.layers", "model.generator.whitening.layers", "evaluation"]


def broken(whole: bytes, header: int, data: st.DataObject) -> bytes:
    """``whole`` with some bytes replaced, inserted or cut off, most often before ``header``."""
    place = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole) - 1)))
    new = data.draw(st.binary(min_size=0, max_size=4))
    left = data.draw(st.sampled_from([whole[place + len(new) :], whole[place:], b""]))
    return whole[:place] + new + left


def opened(file: Path) -> None:
    """By the commands, which must end with 0 (or 3, for weights that are not finite) or 2."""
    for command in (
        ["spectrum", str(file)],
        ["sample", str(file), "--seeds", "0", "--out", str(file.parent / "x.png")],
    ):
        assert main(command) in (0, 2)


@FUZZ
@given(data=st.data())
def test_any_change_of_the_bytes_of_a_model_file_is_named_or_harmless(file: Path, data: st.DataObject) -> None:
    whole = file.read_bytes()
    other = file.with_name("other.safetensors")
    other.write_bytes(broken(whole, 8 + int.from_bytes(whole[:8], "little"), data))
    opened(other)


@FUZZ
@given(data=st.data())
def test_any_change_of_the_bytes_of_a_state_dict_is_named_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "x.pth"
    legacy = data.draw(st.booleans())
    torch.save({"a.weight": torch.eye(3), "b": torch.zeros(2)}, file, _use_new_zipfile_serialization=not legacy)
    file.write_bytes(broken(file.read_bytes(), 300, data))
    assert main(["spectrum", str(file)]) in (0, 2)


@FUZZ
@given(key=st.sampled_from(KEYS), value=VALUES, number=st.text(max_size=5), names=VALUES)
def test_any_metadata_are_named_or_harmless(file: Path, key: str, value: Any, number: str, names: Any) -> None:
    whole = file.read_bytes()

    def change(tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        tree = json.loads(about["config"])
        *path, last = key.split(".")
        section = tree
        for part in path:
            section = section[part]
        section[last] = value
        about |= {"config": json.dumps(tree), "num_classes": number or "0", "class_names": json.dumps(names)}

    rewrite(file, change)
    opened(file)
    file.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        about(**{"orthogan-format": "x" * 10**6}),
        about(class_names=json.dumps(["x" * 10**6]), num_classes="2"),
        configured(kind="x" * 10**6),
        configured(kind="stylegan2"),  # other tensors: each of them could be listed
        lambda tensors, about: tensors.update({f"extra.{index}": torch.zeros(1) for index in range(5000)}),
    ],
)
def test_a_message_stays_short_whatever_the_file_says(
    file: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(file, change)
    assert main(["sample", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 5000
    assert said.startswith(f"orthogan: {file}: ")


def test_every_bit_of_the_metadata_counts(file: Path) -> None:
    whole = file.read_bytes()
    start, end = whole.index(b'"__metadata__"'), whole.rindex(b"}", 0, whole.index(b'"dtype"'))
    right = load_generator(file)(torch.zeros(1, 8))
    for place in range(start, end, max(1, (end - start) // 60)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)
        with contextlib.suppress(UserError):  # the name of the hash, or the order of the entries, changes no number
            assert torch.equal(load_generator(file)(torch.zeros(1, 8)), right)


def test_an_edited_file_that_the_user_vouches_for_is_taken_with_a_warning(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal = read_metadata(file)[HASH]
    rewrite(file, lambda tensors, about: about.update({HASH: seal, "step": "7"}))
    with pytest.raises(UserError, match="damaged"):
        load_generator(file)
    assert load_generator(file, trust=True).latent_dim == 8
    assert f"warning: {file}: damaged" in capsys.readouterr().err
