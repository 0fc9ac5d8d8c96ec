"""Hostile and damaged input for every reader: code 0, 2 or 3, no traceback, bounded time and memory, no code run.

Half of the cases are written by hand, the others are valid files with random damage.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tests.faults.child import Child, limit_memory
from tests.faults.damage import MODEL
from tests.faults.findings import Findings
from tests.faults.runs import EXTRACTOR, ROOT, SMALL, TINY

PATIENCE = 120.0  # seconds for one input; each takes about one on a quiet machine
MEMORY = 2 << 30  # bytes above those of a child that has no input
RAN = "ran"  # a file that hostile input tries to make
HOSTILE = f'open("{RAN}", "w").close()'
Words = list[str]
Maker = Callable[[Path, random.Random], Words]


def bad(index: int, seed: int, out: Path) -> Findings:
    """One input: the readers in turn."""
    draw, found = random.Random(seed), Findings(tried=1)
    readers = list(READERS.items())
    name, makers = readers[index % len(readers)]
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    maker = makers[index // len(readers) % len(makers)]
    words = maker(folder, draw)
    before = {entry.name for entry in out.iterdir()}
    child = Child(words, folder, prepare=limit_memory(2 * MEMORY))
    child.wait(PATIENCE)
    shown = [word for word in words if word not in TINY]
    what = f"{name}, {maker.__name__}: orthogan {' '.join(shown)[:200]!r}"
    found.ended(child, what, (0, 2, 3))
    if child.peak > _peak(out) + MEMORY:
        found.add("other", f"{what}: took {child.peak / 2**30:.1f} GiB")
    if (folder / RAN).exists() or {entry.name for entry in out.iterdir()} - before:
        found.add("other", f"{what}: ran code of the input, or wrote outside")
    return found


@cache
def _peak(out: Path) -> int:
    folder = out / "work"
    child = Child(["config", str(SMALL)], folder, output="config.txt")
    child.wait(PATIENCE)
    return child.peak


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """``whole`` with a few random bytes, cut, with a part doubled, deleted or zeroed."""
    data = bytearray(whole)
    kind = draw.randrange(5)
    start = draw.randrange(len(data)) if draw.random() < 0.5 else draw.randrange(min(len(data), 512))
    end = min(len(data), start + draw.randrange(1, 64))
    match kind:
        case 0:
            for _ in range(draw.randrange(1, 10)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        case 1:
            del data[start:]
        case 2:
            data[start:start] = data[start:end]
        case 3:
            del data[start:end]
        case _:
            data[start:end] = bytes(end - start)
    return bytes(data)


# YAML and overrides

TEXTS = (
    "",
    "[]",
    "5",
    "null",
    "a: [1, 2",
    "? [a] : b",
    "{[a]: b}",
    f"seed: {'9' * 4301}",
    "seed: 2026-13-45",
    "seed: !!int abc",
    "seed: !!bool maybe",
    "data: !!map 3",
    "seed: !!python/object/apply:os.system ['touch ran']",
    "seed: !!python/name:os.system",
    "[" * 500,
    "{a: " * 500,
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
    + "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else '*b'] * 9)}]" for i in range(9)),
    "model: {generator: {options: &o {a: *o}}}",
    "\n".join(f"key{i}: 1" for i in range(3000)),
    "base: x.yaml",
    "base: /dev/zero",
    "base: [a, b]",
    "base: nowhere.yaml",
    "base: .",
    "seed: .nan",
    "seed: -1",
    "seed: 1e400",
    "training: {steps: 1" + "0" * 30 + "}",
    "training: {batch_size: 4611686018427387904}",
    "out: /dev/null/x",
    "out: " + "x" * 300,
    "out: 'a\\0b'",
    'out: "\\udc80"',
    "data: {path: ~nobody/x}",
    "data: {source: folder, path: /proc/self/mem}",
    "model: {generator: {kind: 'os:system'}}",
    "model: {generator: {kind: ':x'}}",
    "model: {generator: {kind: '..a:b'}}",
    "model: {generator: {kind: 'json:JSONDecoder'}}",
    "model: {generator: {kind: 'builtins:dict'}}",
    "evaluation: {extractor: ':'}",
    "optimizer: {generator: {lr: .inf}}",
    "optimizer: {generator: {eps: 1e400}}",
    "\ufeffseed: 1",
    "\x00\x01",
    "seed: \ud7ff",
)


KEYS = (
    *("training.steps", "training.batch_size", "training.accumulate", "training.schedule.start"),
    *("training.ema.half_life", "model.generator.channels", "model.generator.latent_dim"),
    *("model.discriminator.norm.c", "model.discriminator.norm.k", "data.resolution", "data.count"),
    *("optimizer.generator.lr", "optimizer.generator.beta1", "optimizer.generator.eps", "evaluation.samples"),
    *("evaluation.reference_samples", "checkpoint.every", "checkpoint.keep", "logging.samples", "logging.every"),
    *("loss.gradient_penalty.weight", "loss.gradient_penalty.interval", "loss.label_smoothing"),
)
VALUES = (
    *("-1", "0", "1", "2", "3", "0.5", ".inf", "-.inf", ".nan", "1e39", "1e-39", "1e400", "null", "true", "abc"),
    *("[]", "{}", "1_000", "2147483648"),
)


def yaml_by_hand(folder: Path, draw: random.Random) -> Words:
    (folder / "x.yaml").write_text(draw.choice(TEXTS), encoding="utf-8")
    return ["config", "x.yaml"]


def yaml_damaged(folder: Path, draw: random.Random) -> Words:
    (folder / "x.yaml").write_bytes(damaged(SMALL.read_bytes(), draw))
    return ["config", "x.yaml", *(["--explain"] if draw.random() < 0.2 else [])]


def override(folder: Path, draw: random.Random) -> Words:
    keys = ["seed", "data", "data.path", "model.generator.options.a", "", ".", "a..b", "training.steps", "out", "base"]
    values = [text for text in TEXTS if "\0" not in text and len(text) < 2000]
    values += ["", "=", "1:30:45", "010", "a # x", "!!set {a}", "{", "*a", "&a", "%", "@", "`", "\t", "\n"]
    return ["config", str(SMALL), f"{draw.choice(keys)}={draw.choice(values)}"]


def override_run(folder: Path, draw: random.Random) -> Words:
    """A value that the schema may accept, at the end of what it accepts, or beyond: tried by a step."""
    word = f"{draw.choice(KEYS)}={draw.choice(VALUES)}"
    return ["train", str(SMALL), *TINY, "out=run", word, "--dry-run"]


# data sets


def _images(draw: random.Random, n: int = 6) -> np.ndarray:
    return np.frombuffer(draw.randbytes(n * 16 * 16 * 3), np.uint8).reshape(n, 16, 16, 3)


def _dry_run(source: str, path: str) -> Words:
    words = ["train", str(SMALL), *TINY, "out=run", f"data.source={source}", f"data.path={path}", "data.count=null"]
    return [*words, "data.channels=3", "training.batch_size=2", "training.generator_batch_size=2", "--dry-run"]


def _npz(draw: random.Random) -> bytes:
    stream = io.BytesIO()
    save = draw.choice((np.savez, np.savez_compressed))
    save(stream, images=_images(draw), labels=np.arange(6) % 2)
    return stream.getvalue()


def npz_damaged(folder: Path, draw: random.Random) -> Words:
    (folder / "x.npz").write_bytes(damaged(_npz(draw), draw))
    return _dry_run("array", "x.npz")


def npz_by_hand(folder: Path, draw: random.Random) -> Words:
    images = _images(draw)
    strange = (
        {"images": np.uint8(3)},
        {"images": images[:0]},
        {"images": images[:, :0]},
        {"images": images[..., :2]},
        {"images": images.astype(np.float64) * np.nan},
        {"images": images.astype(np.complex64)},
        {"images": images, "labels": np.arange(5)},
        {"images": images, "labels": np.array([10**18] * 6)},
        {"images": images, "labels": np.full(6, -1)},
        {"images": images, "labels": np.full((6, 2, 2), 1)},
        {"images": images, "labels": np.array(["a", "b"] * 3)},
        {"images": images.astype("U1")},
        {"other": images},
        {},
    )
    np.savez(folder / "x.npz", **draw.choice(strange))
    if draw.random() < 0.15:
        np.savez(folder / "x.npz", images=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    if draw.random() < 0.15:
        (folder / "x.npz").write_bytes(
            draw.choice((b"", b"PK\x05\x06" + bytes(18), b"<!DOCTYPE html>", b"\x89PNG\r\n"))
        )
    return _dry_run("array", "x.npz")


def npy_by_hand(folder: Path, draw: random.Random) -> Words:
    stream = io.BytesIO()
    np.save(stream, _images(draw))
    data = stream.getvalue()
    shape = draw.choice(
        (b"(6, 16, 16, 3)", b"(10000000000000000000000000000000, 1)", b"(5, 0, 0, 3)", b"((((", b"(-1, 2)", b"()")
    )
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + b", }"
    built = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + data[128:]
    (folder / "x.npy").write_bytes(damaged(data, draw) if draw.random() < 0.5 else built)
    if draw.random() < 0.4:
        (folder / "x.labels.npy").write_bytes(damaged(data, draw))
    return _dry_run("array", "x.npy")


def h5_damaged(folder: Path, draw: random.Random) -> Words:
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        match draw.randrange(8):
            case 0:
                file.create_group("images")
            case 1:
                file["images"] = 3
            case 2:
                file["images"] = h5py.Empty("u1")
            case 3:
                file["images"] = h5py.SoftLink("/nowhere")
            case 4:
                file["images"] = h5py.ExternalLink("/etc/passwd", "/x")
            case 5:
                file.create_dataset("images", (10**9, 64, 64, 3), "u1", chunks=(1, 64, 64, 3))
            case _:
                file["images"] = _images(draw)
                file["labels"] = np.arange(6) % 2
    if draw.random() < 0.6:
        (folder / "x.h5").write_bytes(damaged((folder / "x.h5").read_bytes(), draw))
    return _dry_run("array", "x.h5")


def _picture(draw: random.Random) -> tuple[str, bytes]:
    from PIL import Image

    name = draw.choice(("png", "jpg", "webp", "gif", "bmp", "tif"))
    stream = io.BytesIO()
    options = {"exif": Image.Exif().tobytes()} if name in ("png", "jpg", "webp") else {}
    Image.fromarray(_images(draw, 1)[0]).save(stream, {"jpg": "jpeg", "tif": "tiff"}.get(name, name), **options)
    return name, stream.getvalue()


def images_damaged(folder: Path, draw: random.Random) -> Words:
    root = folder / "images"
    root.mkdir()
    for number in range(6):
        name, data = _picture(draw)
        (root / f"{number}.{name}").write_bytes(damaged(data, draw) if number < 2 else data)
    return [*_dry_run("folder", "images"), "data.bad_limit=1.0"]


def images_by_hand(folder: Path, draw: random.Random) -> Words:
    root = folder / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            kind, data = _picture(draw)
            (root / name / f"{number}.{kind}").write_bytes(data)
    match draw.randrange(7):
        case 0:
            os.mkfifo(root / "cat" / "x.png")
        case 1:
            (root / "cat" / "x.png").symlink_to("/dev/zero")
        case 2:
            (root / "loop").symlink_to(".")
        case 3:
            (root / "cat" / "x.png").symlink_to("x.png")
        case 4:
            (root / "cat" / "\x1b[2J\n.png").write_bytes(b"no picture")
        case 5:
            os.mkfifo(root / "dataset.json")
        case _:
            os.close(os.open(os.fsencode(root / "cat") + b"/\xff\xfe.png", os.O_CREAT))
    return [*_dry_run("folder", "images"), "data.labels=true", "data.bad_limit=1.0"]


def dataset_json(folder: Path, draw: random.Random) -> Words:
    root = folder / "images"
    root.mkdir()
    for number in range(4):
        (root / f"{number}.png").write_bytes(_encoded(_images(draw, 1)[0]))
    good = json.dumps({"labels": [[f"{n}.png", n % 2] for n in range(4)]})
    strange = (
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"labels": 5}',
        '{"labels": null}',
        '{"labels": [["0.png"]]}',
        '{"labels": [["0.png", 999999999]]}',
        '{"labels": [["0.png", 1e400]]}',
        '{"labels": [["0.png", NaN], ["1.png", "a"]]}',
        '{"labels": [["0.png", -1]]}',
        '{"labels": [["../../x.png", 1]]}',
        '{"labels": [["0.png", ' + "9" * 5000 + "]]}",
        '{"labels": {"0.png": 1}}',
        '{"labels": [[0, 1], [{}, 2]]}',
    )
    data = damaged(good.encode(), draw) if draw.random() < 0.4 else draw.choice(strange).encode()
    (root / "dataset.json").write_bytes(data)
    return [*_dry_run("folder", "images"), "data.labels=true"]


def _encoded(image: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def zip_damaged(folder: Path, draw: random.Random) -> Words:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for number in range(6):
            name, data = _picture(draw)
            file.writestr(f"{'cat' if number % 2 else 'dog'}/{number}.{name}", data)
        for name in ("../outside.png", "/absolute.png", "a/../../outside2.png", "nul\0l.png"):
            file.writestr(name, _encoded(_images(draw, 1)[0]))
        if draw.random() < 0.3:
            file.writestr("dataset.json", "[" * 100_000)
        if draw.random() < 0.2:
            file.writestr("bomb.png", bytes(1 << 28), zipfile.ZIP_DEFLATED)
    data = stream.getvalue()
    (folder / "x.zip").write_bytes(damaged(data, draw) if draw.random() < 0.7 else data)
    return [*_dry_run("folder", "x.zip"), "data.bad_limit=1.0"]


def factor_file(folder: Path, draw: random.Random) -> Words:
    """Files of the published sets: damaged, empty, or lying about their size."""
    source, name = draw.choice(
        (("dsprites", "x.npz"), ("mpi3d", "x.npz"), ("shapes3d", "x.h5"), ("smallnorb", "norb"), ("cars3d", "cars"))
    )
    path = folder / name
    stream = io.BytesIO()
    np.savez(stream, imgs=np.zeros((4, 64, 64), np.uint8), latents_classes=np.zeros((4, 6), np.int64))
    content = draw.choice((b"", b"hello", stream.getvalue(), damaged(stream.getvalue(), draw)))
    if "." in name:
        path.write_bytes(content)
    else:
        path.mkdir()
        huge = b"\x1e\x3d\x4c\x55" + (4).to_bytes(4, "little") + b"\xff\xff\xff\x7f" * 4
        for file in ("smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat", "car_000_mesh.mat"):
            (path / file).write_bytes(draw.choice((content, huge)))
            (path / f"{file}.gz").write_bytes(gzip.compress(huge))
    return _dry_run(source, name)


def idx_file(folder: Path, draw: random.Random) -> Words:
    root = folder / "fashion"
    root.mkdir()
    good = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (4, 28, 28)) + draw.randbytes(4 * 784)
    lies = (
        b"\x00\x00\x08\xff" + b"\xff" * 1020,
        b"\x00\x00\x08\x04" + b"\x00\x01\x00\x00" * 4,
        b"\x00\x00\x08\x03" + b"\xff" * 12,
        b"",
        b"\x1f\x8b",
    )
    for name, kind in (("train-images-idx3-ubyte", 0), ("train-labels-idx1-ubyte", 1)):
        data = draw.choice((damaged(good, draw), good, *lies)) if kind == 0 else draw.choice((good, *lies))
        zipped = draw.random() < 0.4
        (root / (name + (".gz" if zipped else ""))).write_bytes(gzip.compress(data) if zipped else data)
    return [*_dry_run("fashion-mnist", "fashion"), "data.channels=1", "data.download=false"]


# models, weights, directions, statistics


def _header(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _with_header(header: dict | str, body: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + body


def _draw_from(name: str) -> Words:
    return ["sample", name, "--seeds", "0-1", "--out", "drawn.png", "--device", "cpu"]


def model_damaged(folder: Path, draw: random.Random) -> Words:
    (folder / "m.safetensors").write_bytes(damaged(MODEL.read_bytes(), draw))
    return draw.choice((_draw_from("m.safetensors"), ["spectrum", "m.safetensors"]))


def model_by_hand(folder: Path, draw: random.Random) -> Words:
    """Metadata that names code, huge nets, or nonsense."""
    header, body = _header(MODEL.read_bytes())
    about = header["__metadata__"]
    config = json.loads(about["config"])
    generator = config["model"]["generator"]
    match draw.randrange(6):
        case 0:
            generator["kind"] = draw.choice(
                ("os:system", "builtins:exec", ":x", "..a:b", "os:name", "math:pi", "json:JSONDecoder", "evil:Evil")
            )
            generator["options"] = draw.choice(({}, {"command": "touch ran"}, {"object": HOSTILE}))
            (folder / "evil.py").write_text(f"{HOSTILE}\nclass Evil: pass\n")
        case 1:
            key = draw.choice(("channels", "latent_dim"))
            generator[key] = draw.choice((-1, 0, 10**9, 10**30, "a", None, [], 1.5, True))
        case 2:
            key = draw.choice(list(about))
            about[key] = draw.choice(("", "x", "-1", "1000000000", "[", "null", "{}", "[1]", "9" * 5000))
        case 3:
            del about[draw.choice(list(about))]
        case 4:
            section = draw.choice(list(config))
            config[section] = draw.choice((None, 5, "x", [], {"a": {"b": "os:system"}}))
        case _:
            config["data"] = {"source": "folder", "path": draw.choice(("/etc", "/dev/zero", "../.."))}
    if "config" in about and draw.random() < 0.9:
        about["config"] = json.dumps(config)
    if draw.random() < 0.05:
        about["config"] = "[" * 100_000
    (folder / "m.safetensors").write_bytes(_with_header(header, body))
    words = ["evaluate", "m.safetensors", "--samples", "16", "--reference-samples", "16", "--extractor", EXTRACTOR]
    return draw.choice((_draw_from("m.safetensors"), ["spectrum", "m.safetensors"], words))


class Hostile:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (HOSTILE,)


def weights(folder: Path, draw: random.Random) -> Words:
    """A .pth file that is hostile, damaged, or none."""
    import torch

    stream = io.BytesIO()
    tensor = torch.ones(4, 3)
    strange = (
        {"a.weight": tensor},
        {1: tensor},
        {"a.weight": tensor.to_sparse()},
        {"a.weight": torch.empty(4, 3, device="meta")},
        {"a.weight": torch.ones(1).expand(10**6, 10**6)},
        {"training": tensor, "forward.weight": tensor},
        {"a.weight": torch.full((4, 3), float("nan"))},
        {"a.weight": tensor.to(torch.complex64), "b.weight": tensor.bool()},
        {"a": Hostile()},
        [1, 2],
        Hostile(),
    )
    torch.save(draw.choice(strange), stream)
    data = stream.getvalue()
    plain = (b"", b"hello", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", data, data)
    (folder / "w.pth").write_bytes(damaged(data, draw) if draw.random() < 0.3 else draw.choice(plain))
    evaluate = ["evaluate", str(MODEL), "--samples", "8", "--reference-samples", "8", "--weights", "w.pth"]
    evaluate += ["--extractor", draw.choice(("efficientnet-lite0", "inception", "clip-vit-b-32", "vgg16"))]
    return draw.choice((["spectrum", "w.pth"], [*evaluate, "--data", str(SMALL), "--device", "cpu"]))


@cache
def _found_directions() -> bytes:
    from orthogan.latent.directions import Directions

    matrix = np.eye(3, 16, dtype=np.float32)
    folder = Path(os.environ["ORTHOGAN_CACHE"])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "faults.safetensors"
    Directions(matrix, "random", scores={"gain": [1.0, 2.0, 3.0]}).save(file)
    return file.read_bytes()


def directions(folder: Path, draw: random.Random) -> Words:
    data = _found_directions()
    header, body = _header(data)
    about = header["__metadata__"]
    key = draw.choice(list(about))
    if draw.random() < 0.6:
        fields = json.loads(about[key]) if about[key].startswith("{") else {}
        inner = draw.choice([*fields, "method"])
        fields[inner] = draw.choice((None, 5, -1, "x", [], {}, [None] * 3, ["\ud800"] * 3, {"a": [10**400]}, 1e999))
        about[key] = draw.choice((json.dumps(fields), "", "[" * 100_000, "x"))
        data = _with_header(header, body)
    else:
        data = damaged(data, draw)
    (folder / "d.safetensors").write_bytes(data)
    words = ["traverse", str(MODEL), "--directions", "d.safetensors", "--steps", "3", "--out", "t.png"]
    return [*words, "--device", "cpu"]


def statistics(folder: Path, draw: random.Random) -> Words:
    """Reference statistics that are none."""
    size = 24
    mu, sigma = np.zeros(size), np.eye(size)
    upper = np.triu(np.ones((size, size)))
    strange = (
        {"mu": mu, "sigma": -sigma},
        {"mu": mu, "sigma": upper},
        {"mu": mu + 1e300, "sigma": sigma},
        {"mu": mu * np.nan, "sigma": sigma},
        {"mu": mu.astype("M8[s]"), "sigma": sigma},
        {"mu": mu.astype("U3"), "sigma": sigma},
        {"mu": mu.astype(complex) + 1j, "sigma": sigma},
        {"mu": mu[:3], "sigma": sigma},
        {"mu": mu},
        {"mu": np.array([None] * size), "sigma": sigma},
    )
    stream = io.BytesIO()
    np.savez(stream, **draw.choice(strange))
    data = stream.getvalue()
    plain = (b"", b"hello", b"\x89PNG\r\n\x1a\n", damaged(data, draw), data, data)
    name = draw.choice(("r.npz", "r.npz", "r.safetensors"))
    (folder / name).write_bytes(draw.choice(plain))
    words = ["evaluate", str(MODEL), "--samples", "16", "--extractor", EXTRACTOR, "--reference", name]
    return [*words, "--device", "cpu"]


# run folders


@cache
def _run_files(reference: Path) -> tuple[Path, ...]:
    return tuple(p for p in sorted(reference.rglob("*")) if p.is_file() and p.suffix in (".json", ".jsonl", ".yaml"))


LINES = ("", "5", "null", "[]", '{"step": "x"}', '{"step": 1e400}', "{}", '{"protocol": 5}', "[" * 5000, "\x00", "\\")


def run_folder(folder: Path, draw: random.Random) -> Words:
    """A run with strange lines in its logs, or with damaged JSON and YAML; read by the commands that take runs."""
    reference = folder.parent / "reference" / "short" / "run"
    if not reference.is_dir():
        from tests.faults.damage import SHORT

        SHORT.reference(folder.parent)
    shutil.copytree(reference, folder / "run", symlinks=True)
    file = folder / "run" / draw.choice(_run_files(reference)).relative_to(reference)
    data = file.read_bytes()
    if file.suffix == ".jsonl" and draw.random() < 0.5:
        lines = data.splitlines()
        lines.insert(draw.randrange(len(lines)), draw.choice((*LINES, "\udcff")).encode(errors="surrogateescape"))
        data = b"\n".join(lines) + b"\n"
    else:
        data = damaged(data, draw)
    file.write_bytes(data)
    uses = (
        ["compare", "run", "--out", "comparison"],
        _draw_from("run"),
        ["spectrum", "run"],
        ["evaluate", "run", "--samples", "16", "--reference-samples", "16", "--extractor", EXTRACTOR],
    )
    return draw.choice(uses)


def measured_cell(folder: Path, draw: random.Random) -> Words:
    """A study's cell with strange measures or sittings."""
    words = run_folder(folder, draw)
    if words[0] != "compare":
        words = ["compare", "run", "--out", "comparison"]
    text = draw.choice(('{"status": "done"}', "[]", "[" * 100_000, "", '{"measures": {"a": 5}}', "\x00", "5"))
    (folder / "run" / draw.choice(("measures.json", "sittings.jsonl", "disentanglement.jsonl"))).write_text(text)
    return words


def command_line(folder: Path, draw: random.Random) -> Words:
    """Options with strange values."""
    strange = ("-1", "0", "1e9", "abc", "", "nan", "inf", "0-", "5-2", "\ud7ff", "x" * 300, "~nobody/x", "/", ".")
    value = draw.choice(strange)
    uses = (
        ["sample", str(MODEL), "--seeds", value],
        ["sample", str(MODEL), "--seeds", "0", "--out", f"{value}.png"],
        ["sample", str(MODEL), "--seeds", "0", "--truncation", value],
        ["sample", value],
        ["traverse", str(MODEL), "--dims", value, "--steps", "3"],
        ["traverse", str(MODEL), "--range", value, "--steps", "3", "--dims", "0"],
        ["discover", str(MODEL), "--method", value, "--out", "d.safetensors"],
        ["discover", str(MODEL), "--out", value],
        ["evaluate", value, "--samples", "8"],
        ["evaluate", str(ROOT / "pretrained"), "--reference", value],
        ["spectrum", str(MODEL), "--layers", value],
        ["compare", value],
        ["study", value],
        ["study", "opt", "--scale", value, "--out", "studies"],
        ["study", "opt", "--redo", value or "x", "--out", "studies"],
        ["train", value],
        ["config", value],
        ["sample", str(MODEL), "--device", value or "x", "--seeds", "0"],
    )
    return draw.choice(uses)


READERS: dict[str, tuple[Maker, ...]] = {
    "YAML": (yaml_by_hand, yaml_damaged),
    "overrides": (override, override_run),
    "arrays": (npz_by_hand, npz_damaged, npy_by_hand, h5_damaged),
    "images": (images_by_hand, images_damaged, zip_damaged, dataset_json),
    "published data sets": (factor_file, idx_file),
    "model files": (model_by_hand, model_damaged),
    "weights": (weights,),
    "directions": (directions,),
    "statistics": (statistics,),
    "run folders": (run_folder, measured_cell),
    "command line": (command_line,),
}
