"""Organisms: what there is, each with its card and its truth."""

from typing import Any

from fastapi import APIRouter

from mainspring.organisms.registry import entries, entry
from mainspring.workbench.bench import Bench
from mainspring.workbench.code import truth_code
from mainspring.workbench.figures.truth import truth_views
from mainspring.workbench.routes.look import as_data

__all__ = ["router"]


def router(bench: Bench) -> APIRouter:
    routes = APIRouter(prefix="/api/organisms")

    @routes.get("")
    def every() -> list[dict[str, Any]]:
        return [
            {"name": e.name, "kind": e.kind, "about": e.about, "ready": e.folder is not None, "megabytes": round(e.size / 1e6, 1)}
            for e in entries()
        ]

    @routes.get("/{name}")
    def one(name: str) -> dict[str, Any]:
        found = entry(name)
        card = found.folder / "card.md" if found.folder else None
        return {
            "name": found.name,
            "kind": found.kind,
            "about": found.about,
            "ready": found.folder is not None,
            "card": card.read_text() if card is not None and card.is_file() else "",
            "views": [as_data(view) for view in truth_views(found)],
            "code": truth_code(found.name),
        }

    return routes
