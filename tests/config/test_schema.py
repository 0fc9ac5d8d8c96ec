"""The config: files build on files, overrides are typed, and every mistake is named with its cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orthogan.config.base import OpenSection, marker_of, section_class
from orthogan.config.files import differences, dump, flatten, load_config
from orthogan.config.schema import Config, only_of, other_task
from orthogan.errors import UserError
from orthogan.gradients.rule import GRADIENT_RULE
from orthogan.penalties.network import PENALTY
from orthogan.training.resume import refuse_changes
from orthogan.weights.network import CONSTRAINT

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def failure(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_defaults_print_completely_and_read_back() -> None:
    config = load_config(None)
    assert Config.model_validate(yaml.safe_load(dump(config))) == config
    assert set(flatten(yaml.safe_load(dump(config)))) == set(flatten(config.model_dump()))


@pytest.mark.parametrize("task", ["gan", "classifier"])
def test_explained_dump_reads_back_and_comments_every_key_of_the_task(task: str) -> None:
    config = load_config(None, ["data.source=cifar10", f"task={task}"])
    text = dump(config, explain=True)
    tree = yaml.safe_load(text)
    assert Config.model_validate(tree) == config
    others = only_of(other_task(task))
    mine = [k for k in flatten(config.model_dump()) if not any(f"{k}.".startswith(f"{other}.") for other in others)]
    assert list(flatten(tree)) == mine
    uncommented = [line for line in text.splitlines() if "#" not in line and not line.endswith(":")]
    assert uncommented == []


def test_base_chain_and_overrides_take_precedence_in_order(tmp_path: Path) -> None:
    write(tmp_path / "ground.yaml", "seed: 1\ntraining: {steps: 10, d_steps_per_g_step: 2}\n")
    (tmp_path / "sub").mkdir()
    top = write(tmp_path / "sub" / "top.yaml", "base: ../ground.yaml\ntraining: {steps: 20}\n")
    config = load_config(top, ["training.batch_size=8", "seed=3"])
    assert (config.seed, config.training.steps, config.training.d_steps_per_g_step, config.training.batch_size) == (
        3,
        20,
        2,
        8,
    )


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    # YAML 1.1 reads 2e-4 as text
    path = write(tmp_path / "a.yaml", "optimizer: {generator: {lr: 3e-4}}\n")
    config = load_config(path, ["optimizer.discriminator.lr=1E-5"])
    assert (config.optimizer.generator.lr, config.optimizer.discriminator.lr) == (3e-4, 1e-5)


@given(st.floats(min_value=1e-30, max_value=1e30))
def test_any_float_survives_an_override(value: float) -> None:
    assert load_config(None, [f"optimizer.generator.lr={value!r}"]).optimizer.generator.lr == value


TEXTS = [
    "set #1",
    "2024",
    "no",
    "1e5",
    "2024-11-28",
    "010",
    "1:30",
    "a: b",
    "[x",
    "{",
    "*a",
    "&a",
    "!tag",
    "'q'",
    " a ",
    "%",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "key", ["data.path", "data.root", "out", "model.init", "evaluation.extractor", "augment.policy"]
)
def test_a_key_that_holds_text_takes_it_as_it_stands(key: str, text: str) -> None:
    overrides = ["data.source=folder", "data.path=x", "augment.kind=diffaugment", f"{key}={text}"]
    assert flatten(load_config(None, overrides).model_dump())[key] == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[conv, !last, 2024, no, 1e5]", ["conv", "!last", "2024", "no", "1e5"]),
        ("conv,tall", ["conv", "tall"]),
        ("[blocks.*, 'a, b', \"c\"]", ["blocks.*", "a, b", "c"]),
        ("[]", []),
        ("", []),
    ],
)
def test_a_key_that_holds_a_list_of_text_takes_its_words_as_they_stand(text: str, words: list[str]) -> None:
    assert load_config(None, [f"model.generator.norm.layers={text}"]).model.generator.norm.layers == words


def test_overrides_may_be_one_text_or_values_by_key() -> None:
    assert load_config(None, "seed=3") == load_config(None, {"seed": 3}) == load_config(None, ["seed=1", {"seed": 3}])
    config = load_config(
        None,
        {
            "data": {"source": "folder", "path": "2024"},
            "model.generator": {"kind": "stylegan2", "options": {"mapping_layers": 4}},
            "data.flip": True,
        },
    )
    assert (config.data.path, config.data.flip) == ("2024", True)
    assert config.model.generator.options == {"mapping_layers": 4}
    with pytest.raises(UserError, match=r"override 'seed=x': seed is 'x'"):
        load_config(None, {"seed": "x"})
    with pytest.raises(UserError, match="write key"):
        load_config(None, {"data path": "x"})


def test_overrides_of_other_keys_are_yaml() -> None:
    overrides = ["data.path=null", "out=", "data.count=null", "evaluation.background=true", "evaluation.device=cpu"]
    net = ["model.generator.kind=stylegan2", "model.generator.options={mapping_layers: 4, equalized: no}"]
    config = load_config(None, [*overrides, *net])
    assert (config.data.path, config.out, config.data.count) == (None, "runs/default", None)
    assert (config.evaluation.background, config.evaluation.device) == (True, "cpu")
    assert config.model.generator.options == {"mapping_layers": 4, "equalized": False}


@given(st.sampled_from(sorted(flatten(Config().model_dump()))), st.text(max_size=40))
@example("data.path", "a\x85b")
@settings(deadline=None)  # the first override of a kind imports its room
def test_any_override_is_accepted_or_refused_with_its_text(key: str, text: str) -> None:
    try:
        config = load_config(None, [f"{key}={text}"])
    except UserError as error:
        said = str(error)
        assert said.startswith("override ")
    else:
        assert Config.model_validate(yaml.safe_load(dump(config))) == config


def numbers(annotation: object, bounds: list[object]) -> list[tuple[type, list[object]]]:
    """(int | float, bounds) of every number in a type."""
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        return numbers(inner, [*bounds, *extra])
    if get_origin(annotation) is Literal:
        return []
    if inner := get_args(annotation):
        return [found for one in inner for found in numbers(one, bounds)]
    return [(annotation, bounds)] if annotation in (int, float) else []


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every section class below ``model`` by name, those of all kinds included."""
    found = {model.__name__: model}
    for name, field in model.model_fields.items():
        if (marker := marker_of(field.rebuild_annotation(), OpenSection)) is not None:
            found |= {f"{name}-{kind}": section for kind, section in marker.kinds()}
        elif (part := section_class(field.annotation)) is not None:
            found |= sections(part)
    return found


@pytest.mark.parametrize("section", sections(Config).values(), ids=sections(Config).keys())
def test_every_number_of_the_schema_has_a_lower_and_an_upper_bound(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        for _, bounds in numbers(field.rebuild_annotation(), []):
            said = repr(bounds)
            if name != "schedule":  # pairs that orthogan.penalties.schedule checks
                assert "le=" in said.lower() or "lt=" in said.lower(), (name, said)
                assert "ge=" in said.lower() or "gt=" in said.lower(), (name, said)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e39", "-1e39", "1e400", "1" + "0" * 31, "-1" + "0" * 31])
@pytest.mark.parametrize("key", [k for k, v in flatten(Config().model_dump()).items() if isinstance(v, int | float)])
def test_no_number_is_infinite_or_beyond_its_bounds(key: str, value: str) -> None:
    assert key in failure(None, f"{key}={value}")


@pytest.mark.parametrize(
    "override",
    [
        "model.generator.norm={kind: rotation, sample: .inf}",
        "model.generator.channels=1000000000",
        "model.classifier.channels=1000000000",
        "model.generator.latent_dim=1000000000",
        "model.generator.norm={kind: rotation, refine: 1000000000}",
        "model.generator.norm={kind: skew_orthogonal, terms: 1000000000}",
        "loss.latent_penalty.directions=1000000000",
        "model.generator.options.x=.nan",
        "model.generator.options.x=2026-11-28",
        "model.generator.options.x=!!set {a}",
        "model.generator.options={x: [.inf]}",
        "a" + ".a" * 3000 + "=1",
        "evaluation.reference_samples=1",
    ],
)
def test_values_that_no_run_can_use_are_refused(override: str) -> None:
    assert failure(None, override).startswith("override ")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "model.generator.chanels=3",
            ["unknown key 'model.generator.chanels'", "did you mean 'model.generator.channels'?"],
        ),
        ("training.lr=2", ["'optimizer.generator.lr' or 'optimizer.discriminator.lr'"]),
        ("seed=hello", ["seed is 'hello'", "integer"]),
        ("seed=1.5", ["seed is 1.5"]),
        ("data.flip=3", ["data.flip is 3", "boolean"]),
        ("training.batch_size=0", ["training.batch_size is 0", "greater than or equal to 1"]),
        ("optimizer.generator.lr=-1", ["greater than 0"]),
        ("loss.kind=hinges", ["'hinges'", "'hinge'"]),
        ("loss.latent_penalty.start=1", ["loss.latent_penalty.start is 1", "less than 1"]),
        ("loss.contrastive.start=1.0", ["loss.contrastive.start is 1.0", "less than 1"]),
        ("training.accumulate=3", ["training.accumulate", "does not divide batch_size = 64"]),
        ("data.source=folder", ["data.path", "needs the path"]),
        ("evaluation.metrics=[kid]", ["evaluation.best", "not among the metrics"]),
        ("evaluation.metrics=[fid,foo]", ["evaluation.metrics.1 is 'foo'"]),
        ("model=3", ["model is 3: must be a mapping of keys to values"]),
        ("data=null", ["data is None: must be a mapping", "remove the key to use its defaults"]),
        (
            "data={source: array, path: x, options: {range: [.nan, 1]}}",
            ["data.options.range.0 is nan: input should be"],
        ),
        ("out", ["write key.subkey=value"]),
        ("nonsense.deep.key=1", ["unknown key 'nonsense'", "valid here:"]),
    ],
)
def test_mistakes_are_named_with_their_cure(override: str, parts: list[str]) -> None:
    message = failure(None, override)
    assert repr(override) in message
    for part in parts:
        assert part in message, message


def test_impossible_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="critic must be Lipschitz"):
        load_config(None, ["loss.kind=wasserstein", "model.discriminator.norm.kind=none"])
    with pytest.raises(UserError, match=r"data\.labels: 'celeba' has no classes.*options\.attributes"):
        load_config(None, ["data.source=celeba", "data.labels=true"])
    assert load_config(None, ["data.source=celeba", "data.labels=true", "data.options.attributes=[Male]"]).data.labels
    with pytest.raises(UserError, match=r"data\.resolution: must be 32 or 64 for sprites, not 48"):
        load_config(None, ["data.source=sprites", "data.resolution=48"])


@pytest.mark.parametrize("value", ["[64]", "[]", "[64,96,3]", "64x96", "null", "{height: 64}"])
def test_a_size_that_is_neither_a_number_nor_a_pair_says_both_forms(value: str) -> None:
    with pytest.raises(UserError, match=r"data\.resolution is .*: must be one number.*\[height, width\]"):
        load_config(None, [f"data.resolution={value}"])


def test_errors_name_the_file_that_set_the_key(tmp_path: Path) -> None:
    write(tmp_path / "ground.yaml", "training: {steps: none}\n")
    top = write(tmp_path / "top.yaml", "base: ground.yaml\nseed: 2\n")
    message = failure(top)
    assert message.startswith(f"{tmp_path / 'ground.yaml'}: training.steps is 'none'")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = failure(write(tmp_path / "a.yaml", "sed: 1\ntraining: {steps: 0}\n"))
    assert "'sed'" in message
    assert "training.steps is 0" in message


def test_files_that_are_no_config(tmp_path: Path) -> None:
    assert "no such config file" in failure(tmp_path / "absent.yaml")
    write(tmp_path / "sngan.yaml", "")
    assert "did you mean" in failure(tmp_path / "sngam.yaml")
    assert "not a list" in failure(write(tmp_path / "l.yaml", "- 1\n"))
    assert "not valid YAML" in failure(write(tmp_path / "y.yaml", "a: [1\n"))
    assert "line 2: the key 'seed' occurs twice" in failure(write(tmp_path / "d.yaml", "seed: 1\nseed: 2\n"))
    assert "does not exist" in failure(write(tmp_path / "b.yaml", "base: gone.yaml\n"))
    write(tmp_path / "one.yaml", "base: two.yaml\n")
    assert "refers back to" in failure(write(tmp_path / "two.yaml", "base: one.yaml\n"))
    assert "base must be the path of another YAML file, not ''" in failure(write(tmp_path / "b.yaml", "base: ''\n"))
    assert "unknown key 'list[int]'" in failure(write(tmp_path / "k.yaml", "list[int]: 1\n"))
    assert r"x\ny.yaml: unknown key 'a'" in failure(write(tmp_path / "x\ny.yaml", "a: 1\n"))


def test_a_folder_a_long_chain_and_a_large_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "this is a folder" in failure(tmp_path / "folder.yaml")
    for i in range(200):
        write(tmp_path / f"{i}.yaml", f"base: {i + 1}.yaml\n")
    assert "the chain of 'base' files is longer" in failure(tmp_path / "0.yaml")
    assert "limit for this kind of file" in failure(write(tmp_path / "big.yaml", "# " + "x" * 10**6))
    assert "does not exist" in failure(write(tmp_path / "b.yaml", f"base: {'x' * 300}.yaml\n"))


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\x00b"])
def test_a_path_that_cannot_be_a_file_is_refused(name: str) -> None:
    assert failure(Path(name))


def test_the_first_of_many_mistakes_are_named(tmp_path: Path) -> None:
    text = "".join(f"k{i}: 1\n" for i in range(5000))
    message = failure(write(tmp_path / "many.yaml", text))
    assert "unknown key 'k0'" in message
    assert "4,990 more mistakes" in message
    assert len(message.splitlines()) == 11


def test_yaml_that_turns_text_into_a_number_says_to_quote_it(tmp_path: Path) -> None:
    assert "put it in quotes" in failure(write(tmp_path / "a.yaml", "data: {path: 2024}\n"))


def test_differences_name_keys_and_both_values() -> None:
    a = load_config(None).model_dump()
    b = load_config(None, ["training.steps=7", "data.flip=true"]).model_dump()
    assert sorted(differences(a, b)) == ["data.flip: False -> True", "training.steps: 50000 -> 7"]
    assert differences(a, a) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_shipped_configs_are_valid_and_hold_only_what_differs(path: Path) -> None:
    config = load_config(path)
    assert config.out == f"runs/{path.relative_to(ROOT / 'configs').with_suffix('')}"
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert len(flatten(own)) <= 30


def test_the_sngan_recipe_is_the_authors() -> None:
    config = load_config(ROOT / "configs" / "cifar10" / "sngan.yaml")
    adam = config.optimizer.generator
    assert (adam.lr, adam.beta1, adam.beta2) == (2e-4, 0.0, 0.9)
    assert config.optimizer.discriminator == adam
    training = config.training
    assert (training.batch_size, training.fakes, training.d_steps_per_g_step, training.steps) == (64, 128, 5, 50_000)
    assert (training.schedule.kind, training.schedule.start, training.schedule.final) == ("linear", 0.0, 0.0)
    assert (config.data.dequantize, config.data.flip, config.loss.kind) == (True, False, "hinge")
    assert (config.model.generator.channels, config.model.discriminator.channels) == (256, 128)
    assert config.model.discriminator.norm.kind == "spectral"


OPTIONS_0_1 = {
    "c": 0.7,
    "k": 1,
    "n_power_iterations": 1,
    "skew_terms": 5,
    "rotation": {
        "method": "qr",
        "block_size": 1024,
        "sample": None,
        "episode": 750,
        "refine": 0,
        "relaxation": 0.1,
        "lr": None,
        "momentum": 0.9,
    },
    "orthogonal": {"method": "qr", "gain": 1.0, "iterations": 12},
    "householder": {"rank": 10, "scale": 1.0},
}
RULE_0_1 = {
    "layers": ["first"],
    "scale": "none",
    "every": 1,
    "momentum": None,
    "nesterov": False,
    "method": "eigh",
    "rank_tolerance": None,
    "form": "vector",
}


@pytest.mark.parametrize(
    ("kind", "options", "now"),
    [
        ("none", {}, []),
        ("spectral", {"c": 0.5}, []),
        ("stable_rank", {"c": 0.5}, ["norm.c=0.5"]),
        (
            "rotation",
            {"rotation": {"method": "cayley", "block_size": 40}},
            ["norm.method=cayley", "norm.block_size=40"],
        ),
        ("orthogonal", {"orthogonal": {"method": "polar"}}, ["norm.method=polar"]),
        ("skew_orthogonal", {"skew_terms": 7}, ["norm.terms=7"]),
        ("householder", {"householder": {"rank": 3, "scale": None}}, ["norm.rank=3", "norm.scale=null"]),
    ],
)
def test_the_stored_config_of_a_run_of_0_1_is_the_one_of_today(kind: str, options: dict, now: list[str]) -> None:
    place = "model.generator."
    rules = "[{kind: nearest_orthogonal, layers: [conv]}, {kind: optimal_learning_rate, layers: [conv]}]"
    penalties = "[{kind: srip, layers: [conv], iterations: 3}]"
    config = load_config(
        None,
        [f"{place}norm.kind={kind}", "training.d_steps_per_g_step=2", f"{place}norm.layers=[linear]"]
        + [f"{place}{key}" for key in now]
        + [f"{place}gradient_transforms={rules}", f"{place}penalties={penalties}"],
    )
    old = config.model_dump()
    old["training"]["n_dis"] = old["training"].pop("d_steps_per_g_step")
    net = old["model"]["generator"]
    net["gradients"] = [
        {**RULE_0_1, "kind": rule["kind"], "layers": ["conv"]} for rule in net.pop("gradient_transforms")
    ]
    net["penalties"] = [
        {"kind": "srip", "weight": 1e-4, "layers": ["conv"], "options": {"iterations": 3}, "schedule": [[0.0, 1.0]]}
    ]
    net["norm"] = {"kind": kind, "layers": ["linear"], **OPTIONS_0_1}
    for key, value in options.items():
        net["norm"][key] = OPTIONS_0_1[key] | value if isinstance(value, dict) else value
    for name in ("discriminator", "classifier"):
        other = old["model"][name]
        other["gradients"] = other.pop("gradient_transforms")
        other["norm"] = {**OPTIONS_0_1, "kind": other["norm"]["kind"], "layers": []}
    assert Config.model_validate(old) == config
    assert refuse_changes(old, config, Path("run"), allow=False) == []


@pytest.mark.parametrize(
    ("section", "foreign"),
    [
        ("model.discriminator.norm={kind: spectral, c: 0.7}", "c"),
        ("model.generator.gradient_transforms=[{kind: nearest_orthogonal, form: matched_norm}]", "form"),
        ("augment={kind: diffaugment, target: 0.6}", "target"),
        ("augment={kind: ada, policy: 'color,translation,cutout'}", "policy"),
        ("augment={kind: none, target: 0.6}", "target"),
        ("training.schedule={kind: linear, factor: 0.1}", "factor"),
        ("optimizer.generator={kind: adam, momentum: 0.9}", "momentum"),
        ("loss.latent_penalty={kind: orojar, weight: 1, decay: 0.01}", "decay"),
    ],
)
def test_an_option_of_another_kind_is_refused_even_with_its_default(section: str, foreign: str) -> None:
    key = section.partition("=")[0]
    with pytest.raises(UserError, match=rf"unknown key '{re.escape(key)}[.0-9]*\.{foreign}'"):
        load_config(None, [section])


def test_options_follow_their_kind_from_file_to_file(tmp_path: Path) -> None:
    base = write(
        tmp_path / "base.yaml", "model: {discriminator: {norm: {kind: stable_rank, c: 0.5, layers: [conv]}}}\n"
    )
    kept = load_config(base, ["model.discriminator.norm.k=2"]).model.discriminator.norm
    assert kept.model_dump() == {"kind": "stable_rank", "layers": ["conv"], "n_power_iterations": 1, "c": 0.5, "k": 2}
    other = load_config(base, ["model.discriminator.norm.kind=orthogonal"]).model.discriminator.norm
    assert (other.kind, other.layers) == ("orthogonal", ["conv"])
    assert "it is an option of kind 'stable_rank'" in failure(base, "model.generator.norm.c=0.5")
    nested = load_config(
        None, ["model.generator.norm={kind: rotation, method: polar}", "model.generator.norm.rotation.method=qr"]
    )
    assert nested.model.generator.norm.model_dump()["method"] == "qr"


@pytest.mark.parametrize(
    ("key", "marker"), [("norm", CONSTRAINT), ("penalties", PENALTY), ("gradient_transforms", GRADIENT_RULE)]
)
def test_the_table_of_kinds_in_the_docs_is_that_of_the_registry(key: str, marker: OpenSection) -> None:
    page = (ROOT / "docs" / "guides" / "toolbox.md").read_text(encoding="utf-8").splitlines()
    rows = []
    for kind, section in marker.kinds():
        options = [f"`{name}`" for name in section.model_fields if name not in marker.base.model_fields]
        rows.append(f"| `{key}` | `{kind}` | {', '.join(options)} |")
    assert [row for row in page if row.startswith(f"| `{key}` |")] == rows


def test_the_length_in_thousands_of_images_is_that_in_steps(tmp_path: Path) -> None:
    both = ["training.batch_size=50", "training.d_steps_per_g_step=2"]
    config = load_config(None, [*both, "training.kimg=1.25"])
    assert (config.training.steps, config.images_per_step) == (13, 100)  # rounded up
    classifier = ["task=classifier", "training.batch_size=50", "training.kimg=1"]
    assert load_config(None, classifier).training.steps == 20
    assert load_config(None, ["training.kimg=1e-6"]).training.steps == 1
    # of the two, the one that is set last counts
    for overrides, steps in (
        (["training.kimg=1", "training.steps=7"], 7),
        (["training.steps=7", "training.kimg=1"], 10),
        (["training.kimg=1", "training.kimg=null"], 50_000),
    ):
        assert load_config(None, [*both, *overrides]).training.steps == steps
    file = write(tmp_path / "run.yaml", dump(config))
    assert load_config(file).training == config.training
    assert load_config(file, ["training.batch_size=25"]).training.steps == 25
    assert load_config(file, ["training.steps=3"]).training.kimg is None
    assert Config.model_validate(config.model_dump()) == config
    message = failure(write(tmp_path / "two.yaml", "training: {steps: 7, kimg: 1}\n"))
    assert "two.yaml: training.steps and training.kimg set the same thing" in message
    assert "training.kimg is 0: input should be greater than 0" in failure(None, "training.kimg=0")


def test_folders_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    file = tmp_path / "mine.yaml"
    file.write_text("out: ~/runs/mine\ndata: {root: ~/data}\n")
    config = load_config(file)
    assert (config.out, config.data.root) == ("/h/runs/mine", "/h/data")
    assert load_config(file, ["out=~"]).out == "/h"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    other = write(tmp_path / "elsewhere" / "other.yaml", "base: ~/mine.yaml\n")
    assert load_config(other).out == f"{tmp_path}/runs/mine"


def test_options_of_another_source_or_kind_stay_behind(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        "data: {source: emoji, path: x.tgz, options: {categories: [Flags]}}\n"
        "model: {generator: {kind: eigengan, options: {dims: 3}}}\n"
    )
    config = load_config(base, ["data.source=folder", "data.path=photos", "model.generator.kind=sngan"])
    assert (config.data.options, config.model.generator.options) == ({}, {})
    assert load_config(base, ["data.source=emoji"]).data.options == {"categories": ["Flags"]}
    child = tmp_path / "child.yaml"
    child.write_text("base: base.yaml\ndata: {source: faces, path: null, options: {fixed: {glasses: none}}}\n")
    assert load_config(child).data.options == {"fixed": {"glasses": "none"}}
    for overrides in (
        ["data.options.categories=[Flags]", "data.source=folder", "data.path=photos"],
        ["data.source=folder", "data.path=photos", "data.options.categories=[Flags]"],
    ):
        with pytest.raises(UserError, match=r"data\.options\.categories"):
            load_config(base, overrides)
    with pytest.raises(UserError, match=r"data\.source"):
        load_config(base, ["data.source=folderr"])


@pytest.mark.parametrize(
    ("override", "switch"),
    [
        ("loss.gradient_penalty.weight=5", "loss.gradient_penalty.kind=r1"),
        ("loss.gradient_penalty.interval=2", "loss.gradient_penalty.kind=r1"),
        ("model.generator.whitening.eps=0.5", "model.generator.whitening.layers=*"),
        ("model.discriminator.pooling.dimension=8", "model.discriminator.pooling.kind=covariance"),
    ],
)
def test_an_override_without_effect_is_refused(override: str, switch: str) -> None:
    key, off = override.partition("=")[0], switch.partition("=")[0]
    assert f"{key} has no effect while {off} is " in failure(None, override)
    load_config(None, [switch, override])
    load_config(None, [override, f"{off}={'' if off.endswith('layers') else usual(off)}"])  # it was turned off


def usual(key: str) -> str:
    value = load_config(None)
    for part in key.split("."):
        value = getattr(value, part)
    return str(value)
