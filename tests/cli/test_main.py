"""The command line from end to end: train, score, sample, traverse; and what it answers to mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from orthogan.cli import config as config_command
from orthogan.cli.main import main
from orthogan.cli.parser import parse, parsers
from orthogan.errors import UserError
from tests.fixtures.runs import ROOT, TINY, environment

EXTRACTOR = "tests.fixtures.extractor:Moments"
OWN_NET = """
import torch
class Mine(torch.nn.Module):
    latent_dim, num_classes = 4, 0
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 32 * 32)
    def forward(self, z, y=None):
        return self.net(z).tanh().view(-1, 1, 32, 32)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run of four steps."""
    folder = tmp_path_factory.mktemp("cli")
    config = folder / "tiny.yaml"
    config.write_text("training: {steps: 4}\ndata: {labels: true}\n", encoding="utf-8")
    assert main(["train", str(config), *TINY, f"out={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_training_outlives_the_reader_of_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("training: {steps: 4}\n", encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -0` does
    with open(writer, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert main(["train", str(config), *TINY, f"out={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "checkpoints" / "step-000000004").is_dir()


def test_an_error_of_own_code_is_not_called_a_bug_of_orthogan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    failing = OWN_NET.replace("return self.net(z)", "raise ValueError('on purpose')\n        return self.net(z)")
    (tmp_path / "failing_net.py").write_text(failing, encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text("training: {steps: 1}\n", encoding="utf-8")
    assert main(["train", "tiny.yaml", *TINY, "model.generator.kind=failing_net:Mine", "out=run"]) == 2
    said = capsys.readouterr().err
    assert "failing_net.py, line 9 failed with ValueError; see the text above" in said
    assert "ValueError: on purpose" in said
    assert "bug in orthogan" not in said


def test_an_error_of_orthogan_is_called_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orthogan.config.files.dump", len)  # it does not take these arguments
    assert main(["config", str(ROOT / "configs" / "demo.yaml")]) == 1
    assert "this is a bug in orthogan" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sngan", "my_own_net:Mine"])
def test_the_commands_that_are_proposed_after_training_run_as_printed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("tiny.yaml").touch()
    Path("my_own_net.py").write_text(OWN_NET, encoding="utf-8")
    words = [*TINY, f"model.generator.kind={kind}", "training.steps=1", "out=-my runs"]
    assert main(["train", "tiny.yaml", *words]) == 0
    proposed = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    assert len(proposed) == 3
    for line in proposed[:2]:
        program, *rest = shlex.split(line)
        assert program == "orthogan"
        assert main(rest) == 0, line
    assert Path("samples.png").is_file()
    assert Path("traversal.html").is_file()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["config", "--list"]])
def test_output_to_a_full_disk(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert main(words) == 2
    with contextlib.suppress(OSError):
        stream.close()
    assert capsys.readouterr().err == "orthogan: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("words", [["train", "demo", "out="], ["config", "demo", "seed=1", "data.path= "]])
def test_an_override_by_an_unset_variable_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    key = words[-1].rstrip(" =")
    said = capsys.readouterr().err
    assert said.startswith(f"orthogan: override {words[-1]!r}: the value is empty")
    assert said.endswith(f"to clear a key, write {key}=null\n")


def test_the_home_folder_where_the_shell_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert parse(["sample", "~/run", "--out=~/x.png"]).out == "/h/x.png"
    assert parse(["compare", "~/a", "b", "--out=~/c"]).runs == ["/h/a", "b"]
    assert parse(["discover", "m", "--method", "text", "--text=~ glasses"]).text == ["~ glasses"]


@pytest.mark.parametrize(
    "words",
    [
        ["discover", "nothing", "--out", "/dev/null/x.safetensors"],
        ["sample", "nothing", "--out", "/dev/null"],
        ["traverse", "nothing", "--save-directions", "/dev/null/x.safetensors"],
        ["spectrum", "nothing", "--plot", "/dev/null/x.png"],
        ["evaluate", "nothing", "--nearest", "/dev/null/x.png"],
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"orthogan: cannot write {words[-1]}: ")


def test_evaluate_prints_value_and_protocol_and_keeps_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["evaluate", str(run), "--metrics", "fid,prc", "--samples", "32", "--extractor", EXTRACTOR])
    assert code == 0
    out = capsys.readouterr().out
    for part in ("FD[Moments]", "precision", "recall", "sprites", "extractor weights", "seed"):
        assert part in out
    assert "FID" not in out
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["metric"] for r in records[-2:]] == ["fid", "prc"]
    assert records[-1]["protocol"]["samples"] == 32
    assert records[-1]["protocol"]["step"] == "4"


def test_evaluate_json_statistics_and_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--samples", "32", "--extractor", EXTRACTOR, "--json"]
    reference = tmp_path / "reference.safetensors"
    assert main(["evaluate", str(run), *common, "--save-reference", str(reference)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run), *common, "--reference", str(reference)]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["value"] == pytest.approx(first["value"], rel=1e-9)
    assert second["protocol"]["reference"] == first["protocol"]["reference"]
    pictures = tmp_path / "pictures"
    assert main(["sample", str(run), "--seeds", "0-31", "--out", str(pictures)]) == 0
    assert len(list(pictures.glob("*.png"))) == 32
    capsys.readouterr()
    arguments = ["evaluate", str(pictures), "--data", str(run / "config.yaml"), *common]
    assert main(arguments) == 0
    third = json.loads(capsys.readouterr().out)
    assert np.isfinite(third["value"])
    assert third["protocol"]["samples"] == 32


@pytest.mark.parametrize(("seeds", "count"), [("0", "1 image"), ("0-1", "2 images")])
def test_a_shipped_model_is_called_by_its_name(
    tmp_path: Path, seeds: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "grid.png"
    assert main(["sample", "sprites-sngan", "--seeds", seeds, "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{count} of sprites-sngan: {file}\n"


def test_sample_grid_is_the_same_picture_every_time(run: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        arguments = ["sample", str(run), "--seeds", "0-7", "--classes", "0,2", "--out", str(tmp_path / name)]
        assert main(arguments) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 64


class Ids(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@pytest.mark.parametrize("method", ["native", "svd"])
def test_traverse_writes_every_form(run: Path, tmp_path: Path, method: str) -> None:
    common = ["--method", method, "--dims", "0,2", "--steps", "5", "--control", "1", "--class", "1"]
    for suffix in (".png", ".gif", ".webp", ".html"):
        out = tmp_path / f"walk{suffix}"
        assert main(["traverse", str(run), *common, "--out", str(out)]) == 0
        if suffix == ".html":
            page = Ids()
            page.feed(out.read_text(encoding="utf-8"))
            assert "input" in page.tags
        else:
            with Image.open(out) as picture:
                assert getattr(picture, "n_frames", 1) > 1 or suffix == ".png"


def test_directions_are_saved_and_read(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "directions.safetensors"
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert main(["traverse", str(run), "--method", "svd", "--save-directions", str(file), "--out", str(one)]) == 0
    assert main(["traverse", str(run), "--directions", str(file), "--out", str(two)]) == 0
    with Image.open(one) as a, Image.open(two) as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_a_single_file_is_enough(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "shared.safetensors"
    file.write_bytes((run / "checkpoints" / "step-000000004" / "generator-ema.safetensors").read_bytes())
    assert main(["sample", str(file), "--seeds", "3", "--out", str(tmp_path / "one.png")]) == 0
    arguments = ["evaluate", str(file), "--samples", "16", "--extractor", EXTRACTOR]
    assert main(arguments) == 0


def test_config_prints_what_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(ROOT / "configs" / "cifar10" / "srngan.yaml"), "seed=9"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["seed"], tree["model"]["discriminator"]["norm"]["kind"]) == (9, "stable_rank")
    assert main(["config", str(ROOT / "configs" / "demo.yaml"), "--explain"]) == 0
    assert "# learning rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "absent.yaml"], ["absent.yaml", "no such config file; `orthogan config --list` shows"]),
        (["train", "{run}"], ["this is a folder; to resume this run, name its config", "config.yaml"]),
        (["evaluate", "{run}", "--data", "spritess"], ["no such data source or config; did you mean 'sprites'?"]),
        (["sample", "{run}", "--device", "gpu"], ["--device 'gpu': unknown device; choose cpu, cuda, cuda:1 or mps"]),
        (["sample", "{run}", "--device", "mps"], ["--device mps: not available here"]),
        (["config", "{empty}", "seeed=1"], ["unknown key 'seeed'", "did you mean 'seed'?"]),
        (["evaluate", "nowhere"], ["nowhere", "no such run"]),
        (["sample", "{empty}"], ["do not contain readable weights"]),
        (["evaluate", "{run}", "--metrics", "fud"], ["unknown metric 'fud'; did you mean 'fd'?"]),
        (["evaluate", "{run}", "--extractor", "incepton"], ["'incepton'", "efficientnet-lite0"]),
        (["evaluate", "{run}", "--samples", "8", "--metrics", "kid", "--extractor", EXTRACTOR], ["KID", "1000"]),
        (["sample", "{run}", "--seeds", "3-x"], ["3-x"]),
        (["sample", "{run}", "--classes", "7"], ["7"]),
        (["sample", "{run}", "--device", "cuda:77"], ["--device cuda:77"]),
        (["traverse", "{run}", "--steps", "4"], ["steps=4", "odd"]),
        (["traverse", "{run}", "--out", "x.mov"], ["x.mov", ".png"]),
        (["traverse", "{run}", "--dims", "99"], ["99"]),
    ],
)
def test_mistakes_end_with_code_2_and_one_clear_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    empty = tmp_path / "empty.yaml"
    empty.touch()
    places = {"{empty}": str(empty), "{run}": str(run)}
    assert main([places.get(a, a) for a in arguments]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["sample", "x", "--out", ""], "argument --out"),
        (["sample", "x", "--seeds="], "argument --seeds"),
        (["study", "opt", "--out", "", "seed=1"], "argument --out"),
    ],
)
def test_an_empty_option_is_refused(words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert f"error: {name}: the value is empty; give one, or omit it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["sample", " "], ["train", "", "seed=1"], ["sample", ""]])
def test_an_empty_argument_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "orthogan: an argument: the value is empty; give one, or omit it" in capsys.readouterr().err


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trian"])
    assert capsys.readouterr().err.strip().endswith("; did you mean 'train'?")


def test_a_deleted_current_folder_is_named(tmp_path: Path) -> None:
    command = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m orthogan config demo"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 2
    assert "orthogan: the current folder was deleted or moved" in ended.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_bug(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m orthogan config demo {closed}"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_train_alone_needs_a_config_but_no_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train"])
    assert capsys.readouterr().err.strip().endswith("required: config")


def test_a_run_that_was_moved_is_not_started_anew(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = yaml.safe_load((moved / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump({**config, "out": "old"}))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "moved/config.yaml"]) == 2
    message = capsys.readouterr().err
    assert "out: old. Add out=moved to resume it, or out=FOLDER for a new run" in message
    assert not Path("old").exists()
    assert main(["train", "moved/config.yaml", "out=moved"]) == 0
    assert "moved: complete" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "config.yaml", tmp_path)
    assert main(["sample", str(tmp_path)]) == 2
    assert "this run has no checkpoint yet; resume its training" in capsys.readouterr().err


def test_unknown_options_name_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "x.yaml", "--dryrun"])
    assert caught.value.code == 2
    assert "did you mean '--dry-run'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "x.yaml", "--out", "y"], "out=runs/mine"),
        (["train", "x.yaml", "--resume"], "unrecognized arguments: --resume"),
        (["sample", "x", "--clases", "1"], "did you mean '--classes'?"),
        (["traverse", "x", "--rca"], "unrecognized arguments: --rca"),
        (["discover", "x", "--dims", "1"], "unrecognized arguments: --dims"),
        (["sweep", "demo", "--dry-run"], "--dry-run is an option of orthogan train only"),
        (["study", "opt", "--dry-run"], "--dry-run is an option of orthogan train only"),
        (["train", "demo", "--jobs", "2"], "--jobs is an option of orthogan study and orthogan sweep only"),
        (["sample", "x", "--dry-run"], "--dry-run is an option of orthogan train only"),
        (["spectrum", "x", "--seeds", "1"], "unrecognized arguments: --seeds"),
    ],
)
def test_hints_name_options_of_the_same_command_only(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    hint = said.partition("did you mean '")[2].partition("'?")[0]
    assert hint not in words
    if hint:
        parse([*words[:2], hint, "1"])


NUMBERS = [
    (command, action.option_strings[0])
    for command, parser in parsers().items()
    for action in parser._actions
    if callable(action.type) and action.type not in (int, float)
]


@pytest.mark.parametrize(("command", "option"), NUMBERS, ids=str)
def test_every_number_of_the_command_line_is_bounded(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("1" + "0" * 30, "9" * 5000, "1e400", "nan", "-inf", "-1" + "0" * 30, "", "x", "\x00", "٣" * 40):
        with pytest.raises(SystemExit) as caught:
            parse([command, "x", f"{option}={value}"])
        assert caught.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"argument {option}" in said
        assert len(said) < 400


def test_no_number_of_the_command_line_is_a_bare_int_or_float() -> None:
    bare = [(c, a.dest) for c, p in parsers().items() for a in p._actions if a.type in (int, float)]
    assert bare == []


def test_the_command_alone_and_help_list_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["help"], ["--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        said = capsys.readouterr().out
        assert all(f"    {command}" in said for command in parsers())
    with pytest.raises(SystemExit):
        main(["help", "sample"])
    assert "Example: orthogan sample" in capsys.readouterr().out


@pytest.mark.parametrize("command", parsers().keys())
def test_every_command_is_described_and_has_an_example_that_parses(command: str) -> None:
    parser = parsers()[command]
    assert parser.description
    assert parser.epilog is not None
    example = parser.epilog.removeprefix("Example: orthogan ")
    assert parse(shlex.split(example)).command == command


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("bad input"), 2, "orthogan: bad input"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
            2,
            "out of memory",
        ),
        (MemoryError(), 2, "out of memory"),
        (PermissionError(13, "Permission denied", "x.png"), 2, "x.png: Permission denied"),
        (OSError("unknown"), 1, "please report it"),
        (RuntimeError("something else"), 1, "please report it"),
        (KeyError("p"), 1, "please report it"),
    ],
    ids=repr,
)
def test_only_bugs_show_a_traceback_and_ask_for_a_report(
    error: Exception, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"error": error}
    exec(compile("def fail(_): raise error", config_command.__file__, "exec"), names)  # as if that file raised it
    monkeypatch.setattr("orthogan.cli.config.run", names["fail"])
    assert main(["config", "x.yaml"]) == code
    said = capsys.readouterr().err
    assert says in said.splitlines()[-1]
    assert ("Traceback" in said) == (code == 1)


def test_a_warning_is_a_line_without_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(_: object) -> None:  # pytest catches the warning itself
        for kind in (UserWarning, RuntimeWarning):
            print(warnings.formatwarning("an overflow", kind, "code.py", 1, "x = y"), end="", file=sys.stderr)

    monkeypatch.setattr("orthogan.cli.config.run", warn)
    usual = warnings.formatwarning
    assert main(["config", "x.yaml"]) == 0
    said = capsys.readouterr().err
    assert said == "orthogan: warning: an overflow\ncode.py:1: RuntimeWarning: an overflow\n  x = y\n"
    assert warnings.formatwarning is usual


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "orthogan", "config", str(ROOT / "configs" / "demo.yaml"), "out=é"]
    done = subprocess.run(words, capture_output=True, env=environment() | {"PYTHONIOENCODING": "ascii"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"out: \\xe9" in done.stdout


@pytest.mark.slow
def test_the_module_and_the_script_are_the_command(tmp_path: Path) -> None:
    for start in (["-m", "orthogan", "--version"], [str(ROOT / "train.py"), "--help"]):
        done = subprocess.run([sys.executable, *start], capture_output=True, text=True, env=environment(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "orthogan" in done.stdout


@pytest.mark.slow
def test_the_script_finds_a_class_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    num_classes = 0\n"
        "    def __init__(self, latent_dim, resolution):\n"
        "        super().__init__()\n"
        "        self.latent_dim, self.side = latent_dim, resolution\n"
        "        self.net = torch.nn.Linear(latent_dim, resolution**2)\n"
        "    def forward(self, z, y=None):\n"
        "        return self.net(z).tanh().view(-1, 1, self.side, self.side)\n"
    )
    (tmp_path / "empty.yaml").touch()
    script = Path(sys.executable).with_name("orthogan")
    arguments = ["train", "empty.yaml", *TINY, "model.generator.kind=mine:Net", "out=run", "--dry-run"]
    done = subprocess.run([script, *arguments], capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "G parameters" in done.stdout


def test_overrides_may_stand_before_and_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parse(["study", "opt", "a=1", "--scale", "cpu", "b.c=[2, 3]", "--jobs", "2", "d=x"])
    assert (arguments.name, arguments.overrides) == ("opt", ["a=1", "b.c=[2, 3]", "d=x"])
    assert (arguments.scale, arguments.jobs) == ("cpu", 2)
    for words in (["study", "opt", "--scal", "cpu", "x"], ["study", "opt", "--sede=3"], ["sample", "run", "a=1"]):
        with pytest.raises(SystemExit) as ended:
            parse(words)
        assert ended.value.code == 2
    assert "unrecognized arguments: a=1" in capsys.readouterr().err


def test_spellings_of_version_0_1_are_read() -> None:
    assert parse(["evaluate", "x", "--norm", "2"]).attack_norm == "2"
    assert parse(["evaluate", "x"]).attack_norm == "inf"
    assert parse(["evaluate", "x", "--attack-norm", "2"]).attack_norm == "2"
    for command in ("sample", "traverse", "discover", "disentangle"):
        assert parse([command, "x", "--class", "1"]).classes == "1"
