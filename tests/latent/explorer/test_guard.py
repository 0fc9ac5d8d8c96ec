"""Who is answered by the live page, over HTTP: this machine's browser, and no other web page through it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from orthogan.errors import UserError
from orthogan.latent.discovery.native import latent_axes
from tests.fixtures.disc import Disc

pytest.importorskip("gradio", reason="needs the extra explore")

import httpx

from orthogan.latent.explorer.page import explore

FILE = {"files": ("a.safetensors", b"x" * 1000)}
UPLOAD = "/gradio_api/upload"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    net = Disc(channels=1, num_classes=0, dim=4)
    page = explore(net, latent_axes(net), port=0, block=False)
    yield page.url.rstrip("/")
    page.close()


def status(url: str, path: str = "/", method: str = "GET", **more: Any) -> int:
    return httpx.request(method, url + path, timeout=30, trust_env=False, **more).status_code


def test_the_browser_on_this_machine_is_answered(url: str) -> None:
    port = url.rsplit(":", 1)[1]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert status(url, headers={"Host": host}) == 200
        assert status(url, headers={"Host": host, "Origin": f"http://{host}"}) == 200
        assert status(url, UPLOAD, "POST", files=FILE, headers={"Host": host, "Origin": f"http://{host}"}) == 200
    assert status(url, UPLOAD, "POST", files=FILE) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "192.168.0.7", "", "[", "a@localhost.x"]
)
@pytest.mark.parametrize(
    ("path", "method"), [("/", "GET"), ("/config", "GET"), (UPLOAD, "POST"), ("/gradio_api/queue/join", "POST")]
)
def test_another_name_of_this_machine_is_not_answered(url: str, host: str, path: str, method: str) -> None:
    host = host.format(port=url.rsplit(":", 1)[1])
    found = httpx.request(method, url + path, headers={"Host": host, "Origin": f"http://{host}"}, trust_env=False)
    assert found.status_code in (400, 403)
    assert "orthogan explore" in found.text or found.status_code == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://", "", "http://["]
)
def test_another_web_page_may_neither_upload_nor_call(url: str, origin: str) -> None:
    for path, more in ((UPLOAD, {"files": FILE}), ("/gradio_api/queue/join", {"json": {}})):
        assert status(url, path, "POST", headers={"Origin": origin}, **more) == 403


def test_large_uploads_the_run_history_and_the_list_of_routes_are_off(url: str) -> None:
    assert status(url, UPLOAD, "POST", files={"files": ("a.safetensors", bytes(17_000_000))}) == 413
    for path in (
        "/gradio_api/run-history/buckets",
        "/gradio_api/run-history/records",
        "/gradio_api/runs",
        "/openapi.json",
    ):
        assert status(url, path) == 404


def test_open_to_the_network_the_page_is_known_by_addresses_alone() -> None:
    from starlette.applications import Starlette

    from orthogan.latent.explorer.guard import Guard

    for host, known, unknown in (
        ("0.0.0.0", ["10.0.0.3", "localhost", "::1"], ["evil.example", ""]),
        ("::", ["10.0.0.3", "fe80::1"], ["evil.example"]),
        ("10.0.0.3", ["10.0.0.3", "127.0.0.1"], ["10.0.0.4", "evil.example"]),
        ("box.lan", ["box.lan"], ["10.0.0.3", "other.lan"]),
    ):
        guard = Guard(Starlette(), host)
        assert all(guard._known(name) for name in known)
        assert not any(guard._known(name) for name in unknown)


def test_gradios_advice_to_open_a_public_link_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradio.networking.url_ok", lambda url: False)
    net = Disc(channels=1, num_classes=0, dim=4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match="too busy") as caught:
        explore(net, latent_axes(net), port=port, block=False)
    assert "share" not in str(caught.value)
    monkeypatch.undo()
    explore(net, latent_axes(net), port=port, block=False).close()  # the port is free again
