"""The application: the page, and what it asks for."""

import gc
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from secrets import token_hex
from threading import Event

from fastapi import FastAPI
from fastapi.responses import Response

from mainspring.workbench import faults
from mainspring.workbench.bench import Bench
from mainspring.workbench.guard import LIMIT, Guard
from mainspring.workbench.routes import gaze, look, models, organisms, patch, steer, studies

__all__ = ["PAGES", "create_app"]

PAGES = ("gaze", "look", "patch", "steer", "organisms", "studies", "models")
FILES = {"workbench.js": "text/javascript", "workbench.css": "text/css"}


def create_app(names: Iterable[str] = (), *, hosts: Iterable[str] = (), closing: Event | None = None) -> Guard:
    """The workbench as an ASGI application.

    Args:
        names: models that the page offers first: local folders, hub ids, `organism:NAME`. They are loaded when they are asked for.
        hosts: names of this machine to answer to, beside 127.0.0.1 and localhost.
        closing: set it when the server is about to stop, so that what is streamed ends and does not hold it up.
    """
    bench = Bench(tuple(names), closing or Event())

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        bench.pool.submit(gaze.warm, bench)
        yield
        bench.pool.shutdown(wait=False, cancel_futures=True)
        gc.unfreeze()  # of the shelf

    app = FastAPI(title="mainspring workbench", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.state.bench = bench
    faults.register(app)
    boot = token_hex(4)

    @app.get("/api/health")
    def health() -> dict[str, str | int]:
        return {"version": version("mainspring"), "boot": boot, "limit": LIMIT}

    for routes in (gaze, look, models, organisms, patch, steer, studies):
        app.include_router(routes.router(bench))

    @app.get("/")
    def page() -> Response:
        return Response(_static("index.html"), media_type="text/html", headers={"cache-control": "no-cache"})

    @app.get("/static/{name}")
    def part(name: str) -> Response:
        if name not in FILES:  # what is served is named, so no path leads elsewhere
            return faults.refusal(404, f"there is no file {name!r}", "Load the page again.")
        tag = f'"{_digest(name)}"'
        return Response(_static(name), media_type=FILES[name], headers={"cache-control": "no-cache", "etag": tag})

    return Guard(app, hosts)


@cache
def _static(name: str) -> bytes:
    return files("mainspring.workbench").joinpath("static", name).read_bytes()


def _digest(name: str) -> str:
    found = re.search(rb"sources ([0-9a-f]{64})", _static(name)[:200])
    return found[1].decode() if found else ""
