"""The Directions file: round trip, validation, deterministic sign and order, the random control."""

from __future__ import annotations

import contextlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from orthogan.errors import UserError
from orthogan.io.write import write_tensors
from orthogan.latent.directions import FORMAT, Directions, random_control
from orthogan.models.generate import model_hash
from tests.fixtures.disc import Affine


def example(k: int = 3, dim: int = 5, seed: int = 0) -> Directions:
    rng = np.random.default_rng(seed)
    return Directions(
        rng.normal(size=(k, dim)),
        method="made up",
        layer="fc",
        scores={"sigma": rng.normal(size=k).tolist(), "activeness": rng.normal(size=k).tolist()},
        names=[f"näme {i}" for i in range(k)],
        notes=["σ", "", "中"][:k],
        model_hash="ab" * 32,
        seed=11,
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    before = example()
    after = Directions.load(before.save(tmp_path / "d.safetensors"))
    assert np.array_equal(before.matrix, after.matrix)
    assert after.matrix.dtype == np.float32
    for name in ("method", "space", "layer", "unit", "names", "notes", "scores", "model_hash", "seed", "layers"):
        assert getattr(after, name) == getattr(before, name), name
    with safe_open(tmp_path / "d.safetensors", framework="numpy") as file:  # readable without us
        assert json.loads(file.metadata()["directions"])["names"][0] == "näme 0"


def test_defaults_and_immutability() -> None:
    plain = Directions(np.eye(2), method="m")
    assert plain.names == ("0", "1")
    assert plain.notes == ("", "")
    with pytest.raises(ValueError, match="read-only"):
        plain.matrix[0, 0] = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": np.zeros(4)}, "shape"),
        ({"matrix": np.ones((0, 4))}, "shape"),
        ({"matrix": np.array([[1.0, np.nan]])}, "NaN"),
        ({"matrix": np.array([[1.0, 0.0], [0.0, 0.0]])}, "direction 1 is all zeros"),
        ({"names": ["a"]}, "1 value of 'names' for 2 directions"),
        ({"scores": {"sigma": [1.0]}}, "'sigma' for 2"),
        ({"scores": {"sigma": [1.0, np.inf]}}, "'sigma' contains"),
    ],
)
def test_parts_that_do_not_fit_are_named(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Directions(**{"matrix": np.eye(2), "method": "m", **change})


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = example().save(tmp_path / "d.safetensors")
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) - 7])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": np.ones(3, np.float32)}, foreign)
    newer = tmp_path / "newer.safetensors"
    save_file({"directions": np.eye(2, dtype=np.float32)}, newer, {"directions": '{"format": "orthogan-directions-9"}'})
    odd = tmp_path / "odd.safetensors"
    text = json.dumps({"format": "orthogan-directions-1", "method": "m", "surprise": 1})
    save_file({"directions": np.eye(2, dtype=np.float32)}, odd, {"directions": text})
    listed = tmp_path / "listed.safetensors"
    save_file({"directions": np.eye(2, dtype=np.float32)}, listed, {"directions": "[1]"})
    for bad in (tmp_path / "missing.safetensors", cut, foreign, newer, odd, listed):
        with pytest.raises(UserError, match=bad.name):
            Directions.load(bad)
    with pytest.raises(UserError, match=r"\.safetensors"):
        example().save(tmp_path / "d.npy")


def test_wrong_latent_dim_and_space_are_refused_and_another_model_warned_of() -> None:
    net = Affine(dim=5)
    with pytest.raises(UserError, match=r"mine: made for a latent of 4 .* has 5"):
        example(dim=4).check(net, where="mine")
    with pytest.raises(UserError, match="space 'w'"):
        Directions(np.eye(5), method="m", space="w").check(net)
    with pytest.warns(UserWarning, match="another model"):
        example().check(net)
    Directions(np.eye(5), method="m", model_hash=model_hash(net)).check(net)  # and no warning (an error below)


def test_the_right_model_is_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    net = Affine(dim=5)
    Directions(np.eye(5), method="m", model_hash=model_hash(net)).check(net)
    Directions(np.eye(5), method="m").check(net)
    assert not recwarn.list


@settings(deadline=None)
@given(st.integers(0, 50), st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4))
def test_orientation_undoes_any_sign_flips(seed: int, signs: list[float]) -> None:
    rows = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    straight = Directions(rows, method="m").oriented().matrix
    flipped = Directions(rows * np.array(signs, np.float32)[:, None], method="m").oriented().matrix
    assert np.array_equal(straight, flipped)
    assert (straight[np.arange(4), np.abs(straight).argmax(axis=1)] > 0).all()
    assert np.array_equal(np.abs(straight), np.abs(rows))


def test_rounding_does_not_decide_the_sign_of_a_tie() -> None:
    for nudge in (-1e-6, 1e-6):
        row = Directions(np.array([[-0.5, 0.5 + nudge, 0.1]]), method="m").oriented().matrix[0]
        assert row[0] > 0
        assert row[1] < 0


def test_order_and_selection_carry_everything_along() -> None:
    given = Directions(np.eye(3), method="m", names=["a", "b", "c"], notes=["A", "B", "C"], scores={"s": [1, 3, 3]})
    ordered = given.sorted_by("s")
    assert ordered.names == ("b", "c", "a")
    assert ordered.notes == ("B", "C", "A")
    assert ordered.scores == {"s": (3.0, 3.0, 1.0)}
    assert np.array_equal(ordered.matrix, np.eye(3)[[1, 2, 0]])
    with pytest.raises(UserError, match=r"no score 't'.*: s"):
        given.sorted_by("t")
    for wrong in ([3], [-1], []):
        with pytest.raises(UserError, match="0 to 2"):
            given.select(wrong)


def test_renaming_gives_another_with_one_name_and_note_changed() -> None:
    given = Directions(np.eye(3), method="m", names=["a", "b", "c"], notes=["A", "B", "C"], scores={"s": [1, 2, 3]})
    named = given.renamed(1, " smile ")
    assert named.names == ("a", "smile", "c")
    assert named.notes == ("A", "B", "C")
    noted = named.renamed(2, "pose", "turns left")
    assert (noted.names, noted.notes) == (("a", "smile", "pose"), ("A", "B", "turns left"))
    assert noted.renamed(2, "pose", "").notes[2] == ""
    assert given.names == ("a", "b", "c")
    assert np.array_equal(noted.matrix, given.matrix)
    assert noted.scores == given.scores
    for wrong in (3, -1):
        with pytest.raises(UserError, match=f"direction {wrong}: .* 0 to 2"):
            given.renamed(wrong, "x")
    with pytest.raises(UserError, match="new name is empty"):
        given.renamed(0, "  ")


def test_random_control_is_orthonormal_seeded_and_stable_under_more() -> None:
    few, many = random_control(7, 3, seed=5), random_control(7, 7, seed=5)
    gram = many.matrix.astype(np.float64) @ many.matrix.T.astype(np.float64)
    assert np.abs(gram - np.eye(7)).max() < 1e-6
    assert np.allclose(few.matrix, many.matrix[:3], atol=1e-6)
    assert np.array_equal(few.matrix, random_control(7, 3, seed=5).matrix)
    assert np.abs(few.matrix - random_control(7, 3, seed=6).matrix).max() > 0.1
    assert few.names == ("random 1", "random 2", "random 3")
    for k in (0, 8):
        with pytest.raises(UserError, match="between 1 and the latent dimension, 7"):
            random_control(7, k, seed=0)


def test_random_control_favours_no_direction() -> None:
    rows = np.concatenate([random_control(3, 1, seed=s).matrix for s in range(600)]).astype(np.float64)
    assert np.abs(rows.mean(axis=0)).max() < 5 / np.sqrt(3 * 600)  # mean 0, variance 1/3 in each coordinate
    assert np.abs((rows**2).mean(axis=0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 600)


def test_no_flipped_bit_is_read_as_other_directions(tmp_path: Path) -> None:
    file = Directions(np.eye(2, 5), "svd", scores={"gain": [2.0, 1.0]}, names=["a", "b"]).save(
        tmp_path / "d.safetensors"
    )
    whole, right = file.read_bytes(), repr(Directions.load(file))
    draw = random.Random(0)
    refused = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        try:
            assert repr(Directions.load(file)) == right
        except UserError:
            refused += 1
    assert refused > 0.8 * len(whole)  # the others are padding, and the name of the hash


@pytest.mark.parametrize(
    "more",
    [
        {"method": ["a"]},
        {"layer": {}},
        {"unit": None},
        {"space": 5},
        {"model_hash": 1},
        {"names": ["\ud800", "b"]},
        {"notes": 5},
        {"scores": {"gain": [10**400, 1]}},
        {"scores": 5},
        {"layers": ["x"], "space": "w"},
        {"unknown": 1},
    ],
)
def test_what_is_no_directions_is_refused_by_the_file(tmp_path: Path, more: dict) -> None:
    about = {"format": FORMAT, "method": "svd", "names": ["a", "b"], "scores": {"gain": [2, 1]}, **more}
    file = write_tensors(tmp_path / "d.safetensors", {"directions": torch.eye(2, 5)}, {"directions": json.dumps(about)})
    with pytest.raises(UserError, match=r"d\.safetensors: "):
        Directions.load(file)


@pytest.mark.parametrize("text", ["", "5", "[1]", "null", "[" * 100_000, "{"])
def test_metadata_that_is_no_description_is_refused_by_the_file(tmp_path: Path, text: str) -> None:
    file = write_tensors(tmp_path / "d.safetensors", {"directions": torch.eye(2, 5)}, {"directions": text})
    with pytest.raises(UserError, match=r"d\.safetensors: "):
        Directions.load(file)


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_harmed_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    file = Directions(np.eye(2, 5), "svd").save(tmp_path_factory.getbasetemp() / "harmed.safetensors")
    draw = random.Random(seed)
    data = bytearray(draw.randbytes(300) if draw.random() < 0.1 else file.read_bytes())
    for _ in range(draw.randrange(4)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    file.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
    with contextlib.suppress(UserError):
        assert Directions.load(file).matrix.ndim == 2


def written(path: Path, described: object, matrix: np.ndarray | None = None) -> Path:
    """A Directions file whose metadata is ``describe_precision``, or the text of it."""
    text = described if isinstance(described, str) else json.dumps(described)
    rows = np.eye(2, 3, dtype=np.float32) if matrix is None else matrix
    path.write_bytes(save({"directions": rows}, metadata={"directions": text}))
    return path


GOOD = {"format": "orthogan-directions-1", "method": "m", "space": "z", "scores": {"s": [1, 2]}, "names": ["a", "b"]}
BAD_VALUES = [
    None,
    3,
    True,
    1.5,
    [],
    [1],
    {},
    {"a": 1},
    "\udcff",
    "x" * 10,
    "1" + "0" * 400,
    10**400,
    [10**400] * 2,
    [[1]] * 2,
]


@pytest.mark.parametrize(
    "key", ["method", "layer", "unit", "space", "model_hash", "seed", "scores", "names", "notes", "layers", "format"]
)
def test_a_file_with_any_value_for_a_key_is_read_or_refused_with_its_name(key: str, tmp_path: Path) -> None:
    for value in BAD_VALUES:
        file = written(tmp_path / "d.safetensors", GOOD | {key: value})
        try:
            read = Directions.load(file)
        except UserError as error:
            said = str(error)
            assert str(file) in said
        else:
            again = Directions.load(read.save(tmp_path / "again.safetensors"))
            assert again.matrix.tolist() == read.matrix.tolist()
            assert {**vars(again), "matrix": 0} == {**vars(read), "matrix": 0}


@pytest.mark.parametrize(
    "described",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"text"',
        "[" * 100_000,
        '{"a":' * 5000,
        json.dumps({"format": "orthogan-directions-1"}),
        json.dumps(GOOD | {"nothing": 1}),
        json.dumps(GOOD | {"scores": {"s": [1e400, 1]}}),
        json.dumps(GOOD | {"scores": {"s": ["x", 1]}}),
        json.dumps(GOOD | {"layers": [10**30], "space": "w"}),
        '{"seed": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:30],
)
def test_a_damaged_description_is_refused_with_the_file(described: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d\.safetensors"):
        Directions.load(written(tmp_path / "d.safetensors", described))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(PLAIN, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=6)


@given(JSON, st.sampled_from([*GOOD, "layer", "unit", "seed", "notes", "layers"]))
@settings(deadline=None, max_examples=200)
def test_any_json_for_a_key_is_read_or_a_user_error(tmp_path: Path, value: object, key: str) -> None:
    file = written(tmp_path / "d.safetensors", GOOD | {key: value})
    try:
        Directions.load(file).save(tmp_path / "again.safetensors")
    except UserError as error:
        said = str(error)
        assert str(file) in said


@pytest.mark.parametrize("dtype", [np.complex64, np.int64, np.float16, np.bool_])
def test_rows_of_other_types_are_converted_or_refused(dtype: type, tmp_path: Path) -> None:
    file = written(tmp_path / "d.safetensors", GOOD, np.eye(2, 3).astype(dtype))
    if dtype is np.float16:
        assert Directions.load(file).matrix.tolist() == np.eye(2, 3).tolist()
    else:
        with pytest.raises(UserError):
            Directions.load(file)


def test_complex_rows_names_that_are_one_text_and_odd_seeds_are_refused_in_python_too() -> None:
    for more in ({"names": "ab"}, {"notes": "ab"}, {"seed": 10**30}, {"seed": None}, {"scores": {"s": ["x", 1]}}):
        with pytest.raises(UserError):
            Directions(np.eye(2, 3), method="m", **more)
    with pytest.raises(UserError, match="complex"):
        Directions(np.eye(2, 3) * 1j, method="m")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", ".", "x" * 300, "absent"):
        with pytest.raises(UserError):
            Directions.load(tmp_path / name)
