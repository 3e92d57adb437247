"""One process that serves the workbench, and the check that it does."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import uvicorn

from mainspring.errors import InputError
from mainspring.workbench.app import create_app

__all__ = ["check", "serve", "serving"]

GRACE = 5
"""Seconds that requests have to end in when the server stops."""

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage --timeout=20000"


def serve(names: Iterable[str], host: str, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Serve until the process is told to stop; port 0 takes a free one."""
    with _bound(host, port) as (server, sockets, address):
        say(f"the workbench is at {address}  (stop it with Ctrl-C)")
        if browser:
            threading.Timer(0.8, webbrowser.open, [address]).start()
        server(names).run(sockets=sockets)


@contextmanager
def serving(names: Iterable[str] = (), host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A server in a thread of this process; gives its address."""
    with _bound(host, port) as (server, sockets, address):
        running = server(names)
        thread = threading.Thread(target=running.run, kwargs={"sockets": sockets}, daemon=True)
        thread.start()
        try:
            while not running.started and thread.is_alive():
                time.sleep(0.01)
            yield address
        finally:
            running.should_exit = True
            thread.join(10)


class _Server(uvicorn.Server):
    """A server that tells its streams when it is about to stop."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self._closing = closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # those whose request did not end in time
            connection.transport.abort()  # pyright: ignore[reportAttributeAccessIssue]
        await asyncio.sleep(0)


@contextmanager
def _bound(host: str, port: int):
    """A port that is taken before anything is loaded, so that one in use is told at once."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port") from None
    named = f"[{host}]" if ":" in host else host

    def server(names: Iterable[str]) -> uvicorn.Server:
        closing = threading.Event()
        app = create_app(names, hosts=[named], closing=closing)
        return _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE), closing)

    try:
        yield server, [taken], f"http://{named}:{taken.getsockname()[1]}"
    finally:
        taken.close()


def check(names: Iterable[str], say: Callable[[str], None]) -> bool:
    """Start, ask for every page and list once, and render the page where there is a Chromium; whether all that worked."""
    import httpx

    names = tuple(names)
    good = True
    with serving(names) as address, httpx.Client(base_url=address, timeout=120) as client:
        asked: list[tuple[str, str, dict[str, str] | None]] = [("GET", path, None) for path in _PATHS]
        asked += [("POST", "/api/models/inside", {"model": name}) for name in names]
        for method, path, body in asked:
            began = time.monotonic()
            answer = client.request(method, path, json=body) if body else client.request(method, path)
            fine = answer.status_code == 200 and len(answer.content) > 1
            good &= fine
            say(
                f"{'ok  ' if fine else 'FAIL'}  {path}  {body or ''} {answer.status_code}, {1e3 * (time.monotonic() - began):.0f} ms"
            )
        program = next(filter(None, map(shutil.which, CHROMIUM)), None)
        if program is None:
            say("skip  rendering: there is no Chromium on this machine")
            return good
        from mainspring.workbench.app import PAGES

        with ThreadPoolExecutor(2) as pool:
            rendered = list(pool.map(lambda page: _rendered(program, f"{address}/#/{page}"), PAGES))
        for page, shown in zip(PAGES, rendered, strict=True):
            fine = f'data-page="{page}"' in shown and 'role="alert"' not in shown
            good &= fine
            say(f"{'ok  ' if fine else 'FAIL'}  rendered  #/{page}")
    return good


_PATHS = (
    "/",
    "/static/workbench.js",
    "/static/workbench.css",
    "/api/health",
    "/api/models",
    "/api/gaze/images",
    "/api/organisms",
)
_PATHS += ("/api/studies",)


def _rendered(program: str, address: str) -> str:
    with tempfile.TemporaryDirectory(prefix="mainspring-", ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS.split(), "--virtual-time-budget=6000", f"--user-data-dir={profile}", "--dump-dom", address]
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "LANG": "C.UTF-8"}
        )
        return found.stdout
