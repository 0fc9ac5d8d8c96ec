"""The web application without a browser: whom it answers, what it refuses in words, and what it hands out."""

from __future__ import annotations

import base64
import io
import tempfile
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import Client, TestResponse

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import latent_axes
from orthogan.latent.explorer.app import HEADERS, LARGEST_UPLOAD, App, Choice, plain_file
from orthogan.latent.latents import Latents
from orthogan.models.generate import generate, sample_latents
from tests.fixtures.disc import Disc

NASTY = '<b>x</b>"</title>&'


def choice(name: str = "discs", dim: int = 6) -> Choice:
    net = Disc(channels=3, num_classes=3, dim=dim)
    return Choice(name, lambda: (net, latent_axes(net), ["dim", "middling"]))


def broken() -> Choice:
    def fail() -> Any:
        raise UserError("runs/lost: no such run")

    return Choice("lost", fail)


@pytest.fixture(scope="module")
def app() -> App:
    return App([choice(), choice(NASTY, 7), broken()], "127.0.0.1")


def post(app: App, path: str, **told: Any) -> TestResponse:
    return Client(app).post(path, json=told)


def said(app: App, path: str, **told: Any) -> str:
    found = post(app, path, **told)
    assert found.status_code == 400
    return found.get_json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "LOCALHOST"])
def test_the_browser_on_this_machine_is_answered(app: App, host: str) -> None:
    for origin in ({}, {"Origin": f"http://{host}"}):
        found = Client(app).get("/", headers={"Host": host, **origin})
        assert found.status_code == 200
        assert HEADERS.items() <= dict(found.headers).items()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.168.0.7", "", "[", "a@localhost.x"]
)
@pytest.mark.parametrize("path", ["/", "/main.js", "/api/open", "/api/load"])
def test_another_name_of_this_machine_is_not_answered(app: App, host: str, path: str) -> None:
    method = "POST" if "api" in path else "GET"
    found = Client(app).open(path, method=method, headers={"Host": host, "Origin": f"http://{host}"})
    assert found.status_code in (400, 403)
    assert "orthogan explore" in found.text or found.status_code == 400


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1:7860.x", "file://", "", "http://["],
)
def test_another_web_page_may_not_call(app: App, origin: str) -> None:
    for path in ("/api/open", "/api/load?model=discs"):
        found = Client(app).post(path, json={}, headers={"Host": "127.0.0.1:7860", "Origin": origin})
        assert found.status_code == 403


def test_a_form_of_another_page_cannot_send_what_a_call_needs(app: App) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert Client(app).post("/api/open", data="{}", content_type=kind).status_code == 415
    assert Client(app).post("/api/open", data="{", content_type="application/json").status_code == 400
    assert "not readable" in said_raw(app, "[1]")


def said_raw(app: App, body: str) -> str:
    return Client(app).post("/api/open", data=body, content_type="application/json").get_json()["error"]


def test_open_to_the_network_the_page_is_known_by_addresses_alone() -> None:
    for host, known, unknown in (
        ("0.0.0.0", ["10.0.0.3", "localhost", "::1"], ["evil.example", ""]),
        ("::", ["10.0.0.3", "fe80::1"], ["evil.example"]),
        ("10.0.0.3", ["10.0.0.3", "127.0.0.1"], ["10.0.0.4", "evil.example"]),
        ("box.lan", ["box.lan"], ["10.0.0.3", "other.lan"]),
    ):
        app = App([choice()], host)
        assert all(app.knows(name) for name in known)
        assert not any(app.knows(name) for name in unknown)


def test_nothing_but_the_parts_of_the_page_is_handed_out(app: App) -> None:
    client = Client(app)
    for path in ("/main.js", "/page.css", "/favicon.svg", "/index.html"):
        assert client.get(path).status_code == 200
    for path in ("/../app.py", "/app.py", "/parts/main.js", "/%2e%2e/app.py", "/api/open", "/main.js/"):
        assert client.get(path).status_code == 404
    assert client.post("/api/nothing", json={}).status_code == 404
    assert client.delete("/").status_code == 404


def test_the_title_is_that_of_the_first_model_and_cannot_smuggle_markup_in() -> None:
    text = Client(App([choice(NASTY)], "127.0.0.1")).get("/").text
    assert NASTY not in text
    assert "<title>&lt;b&gt;x&lt;/b&gt;&quot;&lt;/title&gt;&amp; · orthogan</title>" in text


def test_a_model_is_opened_when_it_is_chosen_and_describes_itself(app: App) -> None:
    told = post(app, "/api/open").get_json()
    assert (told["models"], told["model"]) == (["discs", NASTY, "lost"], "discs")
    assert (told["classes"], told["label"]) == (["dim", "middling", "class 2"], 1)
    assert (told["side"], told["height"]) == (32, 32)
    rows = told["sliders"]["rows"]
    assert [row["name"] for row in rows] == [*(f"Direction {i}" for i in range(6)), "Random direction"]
    assert [row["control"] for row in rows] == [False] * 6 + [True]
    assert all(row["words"].endswith(".") for row in rows)
    assert len(post(app, "/api/open", model=NASTY).get_json()["sliders"]["rows"]) == 8
    assert said(app, "/api/open", model="lost") == "runs/lost: no such run"
    assert "there is no model 'x'" in said(app, "/api/open", model="x")


def view(**more: Any) -> dict[str, Any]:
    return {"seed": 7, "label": 1, **more}


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_a_picture_has_something_to_compare_with_only_if_it_is_changed(app: App) -> None:
    plain = post(app, "/api/draw", model="discs", view=view()).get_json()
    assert list(plain) == ["image"]
    moved = post(app, "/api/draw", model="discs", view=view(offsets={"0": 2})).get_json()
    assert moved["before"] == plain["image"] != moved["image"]
    change = np.abs(pixels(moved["image"]).astype(int) - pixels(plain["image"])).mean()
    assert moved["changed"] == pytest.approx(change, abs=0.06)


@pytest.mark.parametrize(
    ("path", "told", "words"),
    [
        ("/api/draw", {"view": {"seed": -5, "label": 0}}, "the seed is -5: it must be a whole number"),
        ("/api/draw", {"view": {"seed": 1.7, "label": 0}}, "the seed is 1.7"),
        ("/api/draw", {"view": view(offsets={"0": 999})}, "from -100 to 100"),
        ("/api/draw", {"view": view(offsets={"99": 1})}, "slider 99 does not exist"),
        ("/api/draw", {"view": view(label=3)}, "3 classes"),
        ("/api/draw", {}, "the seed must be"),
        ("/api/draw", {"view": view(), "set": "abc"}, "are not loaded here"),
        ("/api/draw", {"view": view(), "set": ["abc"]}, "are not loaded here"),
        ("/api/draw", {"view": view(), "set": {"a": 1}}, "are not loaded here"),
        ("/api/pictures", {"views": []}, "from 1 to"),
        ("/api/pictures", {"views": [view()] * 65}, "from 1 to"),
        ("/api/pictures", {"views": [1]}, "the seed"),
        ("/api/frames", {"view": view(), "motion": "edit"}, "move a slider"),
        ("/api/frames", {"view": view(), "motion": "direction", "row": 50}, "the slider"),
        ("/api/frames", {"view": view(), "motion": "direction", "reach": 1e9}, "the reach"),
        ("/api/png", {"view": view(), "side": 100_000}, "the size of the picture"),
        ("/api/loop", {"view": view(), "motion": "direction", "seconds": 1e9, "side": 64}, "the length"),
        ("/api/loop", {"view": view(), "motion": "direction", "seconds": 2, "side": 9999}, "the size of the loop"),
        ("/api/loop", {"view": view(), "seconds": 2, "side": 64, "format": "avi"}, "written as"),
        ("/api/directions", {"names": [1]}, "not readable"),
        ("/api/directions", {"names": {"99": "x"}}, "direction 99"),
        ("/api/directions", {"saved": [{"name": "x"}]}, "not readable"),
        ("/api/directions", {"saved": [{"name": "x", "offsets": {"0": "nan"}}]}, "NaN"),
    ],
)
def test_wrong_input_is_answered_with_a_sentence(app: App, path: str, told: dict[str, Any], words: str) -> None:
    assert words in said(app, path, model="discs", **told)


def test_a_request_that_is_nested_too_deeply_is_answered(app: App) -> None:
    found = Client(app).post("/api/draw", data="[" * 100_000, content_type="application/json")
    assert found.status_code == 400
    assert "not readable" in found.get_json()["error"]


def test_a_bug_is_told_without_its_details(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = App([choice()], "127.0.0.1")

    def fail(told: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setitem(app._calls, "/api/draw", fail)
    found = post(app, "/api/draw", model="discs", view=view())
    assert found.status_code == 500
    assert "secret" not in found.text
    assert "secret" in capsys.readouterr().err


def test_files_are_loaded_refused_by_name_and_limited_in_size(app: App, tmp_path: Path) -> None:
    client = Client(app)
    file = latent_axes(Disc(channels=3, num_classes=3)).select([2, 0]).save(tmp_path / "a.safetensors")
    found = client.post("/api/load?model=discs&name=mine.safetensors", data=file.read_bytes()).get_json()
    assert [row["name"] for row in found["rows"]] == ["Direction 2", "Direction 0", "Random direction"]
    moved = {"model": "discs", "set": found["key"], "view": view(offsets={"0": 1})}
    again = {"model": "discs", "view": view(offsets={"2": 1})}
    assert post(app, "/api/draw", **moved).get_json() == post(app, "/api/draw", **again).get_json()
    wrong = latent_axes(Disc(dim=7)).save(tmp_path / "wrong.safetensors").read_bytes()
    for data, words in ((b"nonsense", "mine.safetensors: damaged"), (wrong, "latent of 7 dimensions")):
        answer = client.post("/api/load?model=discs&name=mine.safetensors", data=data)
        assert answer.status_code == 400
        assert words in answer.get_json()["error"]
    assert client.post("/api/load?model=discs", data=bytes(LARGEST_UPLOAD + 1)).status_code == 413


def png(net: Disc, seed: int = 3) -> bytes:
    made = io.BytesIO()
    image = generate(net, sample_latents(net, [seed]), [1] if net.num_classes else None)[0]
    Image.fromarray(image.transpose(1, 2, 0)).resize((96, 96), Image.Resampling.NEAREST).save(made, "PNG")
    return made.getvalue()


def opened(app: App, job: str) -> dict[str, Any]:
    while True:
        answer = post(app, "/api/progress", job=job)
        told = answer.get_json()
        if answer.status_code != 200 or told["picture"]:
            return told
        time.sleep(0.02)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("app", "opening"):
        monkeypatch.setattr(f"orthogan.latent.explorer.{room}.STEPS", 40)


@pytest.mark.usefixtures("short")
def test_a_picture_is_projected_and_becomes_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    app, data = App([choice()], "127.0.0.1"), png(Disc(channels=3, num_classes=3))
    begun = Client(app).post("/api/project?model=discs&name=me.png", data=data).get_json()
    assert begun["of"] == 40
    picture = opened(app, begun["job"])["picture"]
    assert picture["name"] == "me.png"
    errors = (pixels(picture["original"]).astype(float) - pixels(picture["image"])) ** 2
    assert picture["scores"]["error"] == pytest.approx(float(np.sqrt(errors.mean())), abs=0.01)
    assert picture["scores"]["error"] < picture["scores"]["nearest"]
    start = {"model": "discs", "view": view(picture=picture["key"], label=picture["label"])}
    drawn = pixels(post(app, "/api/draw", **start).get_json()["image"]).astype(int)
    assert np.abs(drawn - pixels(picture["image"])).max() <= 1
    moved = {**start, "view": {**start["view"], "offsets": {"0": 2}}}
    assert post(app, "/api/draw", **moved).get_json()["changed"] > 0
    png_name = post(app, "/api/png", **moved, side=64).headers["Content-Disposition"]
    assert png_name == 'attachment; filename="picture-edit.png"'
    assert post(app, "/api/picture", model="discs", picture=picture["key"]).get_json() == picture
    assert post(app, "/api/open").get_json()["pictures"] == []  # other visitors are not told of it
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert "seeds, not opened" in said(app, "/api/mark", model="discs", a=[start["view"]] * 2, b=[view()] * 2, name="x")


def test_what_is_no_picture_is_refused_in_one_line(app: App) -> None:
    whole = png(Disc(channels=3, num_classes=3))
    for data in (b"nonsense", b"", whole[: len(whole) // 2]):
        answer = Client(app).post("/api/project?model=discs&name=me.png", data=data)
        assert answer.status_code == 400
        assert answer.get_json()["error"].startswith("me.png: ")
        assert "\n" not in answer.get_json()["error"]
    large = Client(app).post("/api/project?model=discs&name=me.png", data=bytes(LARGEST_UPLOAD + 1))
    assert large.status_code == 413
    assert "at most 16 MB" in large.get_json()["error"]
    assert "open its file again" in said(app, "/api/progress", job="x")
    assert "open its file again" in said(app, "/api/picture", model="discs", picture="x")


@pytest.mark.usefixtures("short")
def test_while_a_picture_is_projected_the_page_draws_and_the_search_can_be_canceled() -> None:
    inside, gate, fails = threading.Event(), threading.Event(), threading.Event()

    def against(device: Any) -> None:
        inside.set()
        gate.wait(60)
        if fails.is_set():
            raise UserError("the weights are not here")

    app, data = App([choice()], "127.0.0.1", against=against), png(Disc(channels=3, num_classes=3))
    client = Client(app)
    job = client.post("/api/project?model=discs", data=data).get_json()["job"]
    assert inside.wait(60)
    assert post(app, "/api/draw", model="discs", view=view()).status_code == 200
    assert post(app, "/api/progress", job=job).get_json() == {"steps": 0, "of": 40, "picture": None}
    assert "another picture" in client.post("/api/project?model=discs", data=data).get_json()["error"]
    assert post(app, "/api/cancel", job=job).status_code == 200
    gate.set()
    fails.set()
    again = client.post("/api/project?model=discs", data=data).get_json()["job"]  # waits for the canceled one
    assert opened(app, again)["error"] == "the weights are not here"
    assert "open its file again" in said(app, "/api/progress", job=job)
    fails.clear()
    last = client.post("/api/project?model=discs", data=data).get_json()["job"]
    assert opened(app, last)["picture"]["name"] == "this file"


def test_latents_of_a_file_are_the_start(tmp_path: Path) -> None:
    net = Disc(channels=3, num_classes=3)
    latents = Latents(np.zeros((2, 6)), labels=[2, 0], names=["me", "you"], scores={"error": [3.25, 1]})
    app = App([Choice("discs", lambda: (net, latent_axes(net), []), latents), choice("other")], "127.0.0.1")
    pictures = post(app, "/api/open").get_json()["pictures"]
    assert [(one["name"], one["label"], one["original"]) for one in pictures] == [("me", 2, None), ("you", 0, None)]
    assert pictures[0]["scores"] == {"error": 3.25}
    assert post(app, "/api/open", model="other").get_json()["pictures"] == []
    wrong = App([Choice("discs", lambda: (net, latent_axes(net), []), Latents(np.zeros((1, 6))))], "127.0.0.1")
    assert "needs classes" in said(wrong, "/api/open")


def test_only_the_newest_loaded_sets_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.latent.explorer.app.KEPT_SLIDERS", 2)
    app = App([choice()], "127.0.0.1")
    keys = []
    for row in range(3):
        file = latent_axes(Disc(channels=3, num_classes=3)).select([row]).save(tmp_path / "a.safetensors")
        keys.append(Client(app).post("/api/load?model=discs", data=file.read_bytes()).get_json()["key"])
    kept = app.opened("discs").sets
    assert list(kept)[-1] == keys[-1]
    assert keys[0] not in kept
    assert app.opened("discs").start in kept


def test_what_is_handed_out_has_its_name_and_type(app: App, tmp_path: Path) -> None:
    png = post(app, "/api/png", model="discs", view=view(offsets={"1": 2}), side=100, smooth=True)
    assert png.headers["Content-Disposition"] == 'attachment; filename="seed7-edit.png"'
    assert Image.open(io.BytesIO(png.data)).size == (100, 100)
    told = {"model": "discs", "view": view(other=9), "motion": "blend", "seconds": 1, "side": 64}
    for kind in ("gif", "webp"):
        loop = post(app, "/api/loop", **told, format=kind)
        assert loop.mimetype == f"image/{kind}"
        assert f"blend-seed7.{kind}" in loop.headers["Content-Disposition"]
        assert Image.open(io.BytesIO(loop.data)).size == (64, 64)
    made = post(app, "/api/directions", model="discs", names={"0": "left"})
    path = tmp_path / "d.safetensors"
    path.write_bytes(made.data)
    assert Directions.load(path).names[0] == "left"
    for name, plain in (('a/b "c"', "a-b--c"), ("Zoë", "Zoe"), ("\u9854", "model"), ("x\r\ny", "x--y")):
        assert plain_file(name) == plain  # HTTP headers are ASCII


def test_marked_pictures_become_the_last_slider(app: App) -> None:
    views = [{"seed": seed, "label": 0} for seed in range(8)]
    start = post(app, "/api/open").get_json()["sliders"]
    told = {"model": "discs", "a": views[:4], "b": views[4:], "name": "glasses"}
    info = post(app, "/api/mark", **told).get_json()
    assert info["key"] != start["key"]
    assert [row["name"] for row in info["rows"][:-2]] == [row["name"] for row in start["rows"][:-1]]
    made, control = info["rows"][-2:]
    assert (made["name"], control["control"], made["control"]) == ("glasses", True, False)
    assert made["note"] == "Marked: 4 pictures without it, 4 with it"
    assert [row["words"] for row in info["rows"][:-2]] == [row["words"] for row in start["rows"][:-1]]
    assert [row["note"] for row in info["rows"][:-2]] == [row["note"] for row in start["rows"][:-1]]
    # it leads from the mean latent of A to that of B, and is as long as the others
    file = post(app, "/api/directions", model="discs", set=info["key"], names={}, notes={}, saved=[])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made.safetensors"
        path.write_bytes(file.data)
        found = Directions.load(path)
    z = sample_latents(Disc(channels=3, num_classes=3, dim=6), range(8)).numpy()
    step = z[4:].mean(0) - z[:4].mean(0)
    np.testing.assert_allclose(found.matrix[-1], step / np.linalg.norm(step), atol=1e-5)
    assert found.names[-1] == "glasses"
    # the new set is drawn from
    view = {"seed": 7, "label": 1, "offsets": {"6": 2.0}}
    assert post(app, "/api/draw", model="discs", set=info["key"], view=view).status_code == 200
    assert "'glasses' already" in said(app, "/api/mark", **{**told, "set": info["key"]})
    assert said(app, "/api/mark", **{**told, "name": " "}) == "give the new direction a name"
    assert said(app, "/api/mark", **{**told, "b": views[:1]}) == "mark from 2 to 1000 pictures as B"
