"""Studies: the gallery with the last verdict of each, a study that runs before one's eyes, and its report."""

import json
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import HTMLResponse, Response

from mainspring.organisms.registry import cache
from mainspring.studies import STUDIES, Claim, Figure, Setting, find_study, run_study
from mainspring.workbench.bench import Asked, Bench, Text
from mainspring.workbench.code import study_code
from mainspring.workbench.events import Send
from mainspring.workbench.faults import NotThere
from mainspring.workbench.routes.look import as_data

__all__ = ["router"]

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; sandbox allow-scripts"
)


class Wanted(Asked):
    """How a study is run."""

    seed: Annotated[int, Field(ge=0, le=10**6)] = 0
    model: Text = ""
    quick: bool = True


def router(bench: Bench) -> APIRouter:
    routes, one_at_a_time = APIRouter(prefix="/api/studies"), Lock()

    @routes.get("")
    def gallery() -> list[dict[str, Any]]:
        return [_card(name) for name in STUDIES]

    @routes.post("/{name}")
    def run(name: str, asked: Wanted) -> Response:
        setting = Setting(asked.seed, asked.model or None, quick=asked.quick)
        found = find_study(name)

        def work(send: Send) -> None:
            with one_at_a_time:
                send("start", {"title": found.title, "code": study_code(name, asked.quick)})
                report = run_study(name, setting, progress=lambda part: send("part", _told(part)))
            report.save(_folder(name))
            send("end", _verdict(report.to_data()))

        return bench.stream(work)

    @routes.get("/{name}/report")
    def report(name: str) -> Response:
        file = _folder(find_study(name).name) / "report.html"
        if not file.is_file():
            raise NotThere(f"the study {name} has not been run here yet")
        return HTMLResponse(file.read_text(), headers={"content-security-policy": POLICY})

    return routes


def _folder(name: str) -> Any:
    return cache().parent / "studies" / name


def _card(name: str) -> dict[str, Any]:
    found = find_study(name)
    card = {"name": name, "title": found.title, "about": found.about, "reference": found.reference}
    file, verdict = _folder(name) / "report.json", None
    if file.is_file():
        try:
            verdict = _verdict(json.loads(file.read_text()))
        except (ValueError, KeyError, TypeError):  # another version wrote it: it counts as not run
            verdict = None
    return card | {"organisms": list(found.organisms), "last": verdict}


def _verdict(data: dict[str, Any]) -> dict[str, Any]:
    held = sum(claim["holds"] for claim in data["claims"])
    return {
        "held": held,
        "claims": len(data["claims"]),
        "holds": data["holds"],
        "seconds": data["seconds"],
        "setting": data["setting"],
    }


def _told(part: Any) -> dict[str, Any]:
    if isinstance(part, Claim):
        said = {"name": part.name, "measured": part.measured, "wanted": part.wanted, "controlled": part.controlled}
        return {"claim": said | {"holds": part.holds}}
    if isinstance(part, Figure):
        return {"figure": {"caption": part.caption, "view": as_data(part.view)}}
    return {"note": part.text}
