"""Who may talk to the live page: the browser on this machine, and no other web page through that browser."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
EVERYWHERE = ("0.0.0.0", "::")


class Guard:
    """Answers 403 to a request under another name than the page's, or from a page of another origin.

    The first stops a web page whose name was made to point at this machine (DNS rebinding), the second one that
    posts to the page's address.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.names = LOOPBACK | {host.strip("[]").lower()}
        self.open = host.strip("[]") in EVERYWHERE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "lifespan" or not (why := self._refusal(Headers(scope=scope))):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await PlainTextResponse(f"{why}\n", status_code=403)(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._known(_name(f"//{host}")):
            return "This page answers only under the address that orthogan explore printed."
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return "This page takes no requests from other web pages."
        return ""

    def _known(self, name: str) -> bool:
        """Open to the network, the page is known by any address: a name may belong to somebody else."""
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.open


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def guarded(host: str) -> dict[str, Any]:
    """Keywords of the web application behind the page: the guard, and no list of its routes."""
    return {"middleware": [Middleware(Guard, host=host)], "openapi_url": None}
