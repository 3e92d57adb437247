"""What stands before the application: only this page may talk to it, and nobody may send it more than it can hold.

- The Host header must name this machine, or a page of another site could reach it through a name of its own (DNS rebinding).
- What changes something must come from this page: an Origin of another site is refused, and bodies are JSON, images or bytes, types that
  other sites cannot send unasked.
- A body that is announced as too large is refused before it is read; one that grows too large is cut off.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainspring.workbench.faults import refusal

__all__ = ["LIMIT", "Guard"]

LIMIT = 8 * 2**20
"""Bytes of the largest body."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware around an application; `hosts` are names of this machine beside the local ones."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = (), limit: int = LIMIT) -> None:
        self.app, self.hosts, self.limit = app, {*LOCAL, *hosts}, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope["method"], headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self.app(scope, _counted(receive, self.limit), _dressed(send))

    def _refused(self, method: str, headers: Headers):
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            return refusal(403, f"this server does not answer to the name {host!r}", "Open it as http://127.0.0.1 and its port.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return refusal(403, f"requests from {origin} are refused", "Use the workbench's own page.")
        if method in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return refusal(400, "the content-length is no number", "Send a body with its length.")
        if int(length) > self.limit:
            said = f"the body has {int(length) / 2**20:.1f} MB, more than the {self.limit / 2**20:.0f} MB that are taken"
            answer = refusal(
                413,
                said,
                "Send less: models see a few hundred pixels of an image, and a direction is one row of numbers.",
                "TooLarge",
            )
            answer.headers["connection"] = "close"
            return answer
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/octet-stream") and not kind.startswith("image/"):
            return refusal(
                415, f"a body of type {kind or 'unknown'} is not taken", "Send JSON, an image, or a file of directions."
            )
        return None


def _name(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _counted(receive: Receive, limit: int) -> Receive:
    """A body without a length is counted as it comes; beyond the limit the sender counts as gone."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > limit else message

    return counted


def _dressed(send: Send) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message["headers"])
            names = {name.lower() for name, _ in given}
            policy = [] if b"content-security-policy" in names else [(b"content-security-policy", POLICY.encode())]
            message = {**message, "headers": [*given, *HEADERS, *policy]}
        await send(message)

    return dressed
