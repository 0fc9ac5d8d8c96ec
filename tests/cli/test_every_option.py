"""Options that would have no effect, and values that cannot work, are refused before a model is opened."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from orthogan.cli.main import main
from orthogan.cli.parser import parse, parsers

MODEL = "sprites-sngan"
REFUSED = {
    "ema run --length 0.1 --points 3": "--points applies only to --search; omit it",
    "ema run --length 0.1 --metrics kid": "--metrics applies only to --search",
    "ema run --length 0.1 --json": "--json applies only to --search",
    "ema run --search 0.05-0.0500001": "too narrow for 7 different lengths",
    "sweep sprites/srngan training.batch_size=4,8 --trials 5": "--trials applies only with --sampler",
    f"discover {MODEL} --marked 0-3 4-7": "--marked does not apply to --method sefa",
    f"discover {MODEL} --text smile": "--text does not apply to --method sefa",
    f"discover {MODEL} --name smile": "--name does not apply to --method sefa",
    f"discover {MODEL} --clip-sha256 abc": "--clip-sha256 applies only with --clip",
    f"discover {MODEL} --threshold 0.5": "--threshold applies only to several methods",
    f"discover {MODEL} --method sefa,text --labels setup.py": "--labels does not apply to --method sefa,text",
    f"discover {MODEL} --method sfea": "did you mean 'sefa'?",
    f"discover {MODEL} --option layr=first": "--option layr: not an option of --method sefa; did you mean 'layer'?",
    f"discover {MODEL} --option layer": "--option 'layer': write NAME=VALUE",
    f"export {MODEL} --to onnx --option spase=z": "spase: not an option of onnx; did you mean 'space'?",
    f"disentangle {MODEL} --data sprites": "--data does not apply to --metrics vp,activeness",
    f"disentangle {MODEL} --encoder q": "--encoder applies only to metrics whose name starts with encoder:",
    f"disentangle {MODEL} --directions setup.py --method sefa": "--method does not apply with --directions",
    f"disentangle {MODEL} --data spritse": "--data: unknown data source 'spritse'; did you mean 'sprites'?",
    f"disentangle {MODEL} --seeds 3-1": "the range '3-1' is reversed",
    f"disentangle {MODEL} --centrality": "name at least three models",
    f"disentangle {MODEL} {MODEL}": "is given twice",
    "disentangle sprites-sngan faces-infogan faces-srngan --centrality --samples 5": "--samples does not apply with",
    f"traverse {MODEL} --directions setup.py --method sefa": "--method does not apply with --directions",
    f"traverse {MODEL} --seeds 0-1 --seed 3": "--seed does not apply with --seeds",
    f"traverse {MODEL} --latent setup.py --seed 3": "--seed does not apply with --latent",
    f"traverse {MODEL} --latent setup.py --classes 3": "--classes does not apply with --latent",
    f"traverse {MODEL} --base zero --truncation 0.5": "--truncation does not apply with --base zero",
    f"traverse {MODEL} --save-directions x.txt": "--save-directions x.txt: the name must end in .safetensors",
    f"traverse {MODEL} --dims x": "'x' is neither a number nor a range",
    f"explore {MODEL} --directions setup.py --method sefa": "--method does not apply with --directions",
    f"explore {MODEL} --port 65536": "must be from 0 to 65,535",
    f"mix {MODEL} --latent setup.py --rows 3-4": "--rows does not apply with --latent",
    f"interpolate {MODEL} --latent setup.py --truncation 0.5": "--truncation applies only to --seeds",
    f"interpolate {MODEL} --seed 3": "--seed applies only to --noise varied",
    f"project {MODEL} setup.py --tune-steps 5": "--tune-steps applies only with --tune",
    f"project {MODEL} setup.py --features none --feature-weight 3": "--feature-weight does not apply with --features",
    f"package {MODEL} --out model --samples 5": "--samples applies only with --metrics",
    "study --scale cpu": "--scale applies only to a study; name one of codes, covariance",
    "study opt seed=3": "seed: each run has its own; use --seeds N instead",
    "sweep sprites/srngan training.batch_size=4,8 out=x": "out: each run has its own; use --out FOLDER instead",
    "sweep sprites/srngan training.batch_size=4,8 --sampler tep": "did you mean 'tpe'?",
    "sweep sprites/srngan training.batch_size=4,-8 --sampler tpe": "training.batch_size is -8",
    "sweep sprites/srngan training.batch_size=4.5..8.5 --sampler tpe": "training.batch_size is 4.5",
    f"export {MODEL} --to page --directions setup.py --method sefa": "--method does not apply with --directions",
    "config demo --list": "config does not apply with --list",
}


@pytest.mark.parametrize("line", REFUSED)
def test_an_option_without_effect_is_refused_at_the_start(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.py").touch()
    try:
        code = main(shlex.split(line))
    except SystemExit as ended:  # argparse
        code = ended.code
    assert code == 2
    assert REFUSED[line] in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["setup.py"]


@pytest.mark.parametrize("value", ["x", "nan", "inf", "1e400", "-1", "9" * 40])
def test_every_number_of_every_command_refuses_what_it_cannot_be(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for name, parser in parsers().items():
        for action in parser._actions:
            if action.type is None or not action.option_strings or action.dest == "crop":
                continue
            tried += 1
            with pytest.raises(SystemExit) as ended:
                parse([name, f"{action.option_strings[0]}={value}"])
            assert ended.value.code == 2
            said = capsys.readouterr().err
            assert f"argument {'/'.join(action.option_strings)}: " in said
            assert "must be" in said
    assert tried > 40
