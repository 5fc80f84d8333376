"""Who may ask a server: loopback addresses, and no pages of other sites."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether a server at `host` is reachable from this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_site(request: web.Request, host: str) -> None:
    """Refuse requests from pages of other sites to a server that listens at `host`.

    Browsers let any page open a WebSocket to this machine, but send its Origin. A foreign name
    that points here (DNS rebinding) shows in the Host header. Raises HTTPForbidden, and
    HTTPBadRequest for a header that is no address.
    """
    name = _address(f"//{request.host}").hostname or ""
    if is_loopback(host) and name not in (*_NAMES, host):
        raise web.HTTPForbidden(text=f"this is not {name}")
    origin = request.headers.get("Origin")
    if origin is not None and _address(origin).netloc != request.host:
        raise web.HTTPForbidden(text="requests from pages of other sites are refused")


def _address(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{text[:80]!r} is no address") from None
