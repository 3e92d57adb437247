"""Models: those that are open, one more from a folder or the hub, its modules and its sites."""

from typing import Any

from fastapi import APIRouter

from mainspring.organisms.registry import entries
from mainspring.workbench.bench import Asked, Bench, Name
from mainspring.workbench.code import load_code, reading_code
from mainspring.workbench.examples import examples_for, inputs_code

__all__ = ["router"]

MODULES = 4000
"""Modules of the largest tree that is told."""


class Wanted(Asked):
    """A model by its name."""

    model: Name


def router(bench: Bench) -> APIRouter:
    routes = APIRouter(prefix="/api/models")

    @routes.get("")
    def every() -> dict[str, Any]:
        ready = [f"organism:{entry.name}" for entry in entries() if entry.folder is not None]
        held = {one.name: one.summary() for one in bench.shelf}
        names = list(dict.fromkeys([*bench.names, *held, *ready]))
        return {"names": names, "first": list(bench.names), "open": held}

    @routes.post("/open")
    def open_one(asked: Wanted) -> dict[str, Any]:
        return bench.shelf.get(asked.model).summary()

    @routes.post("/examples")
    def examples(asked: Wanted) -> dict[str, Any]:
        with bench.shelf.use(asked.model) as held:
            return examples_for(held).to_data() | {"summary": held.summary()}

    @routes.post("/inside")
    def inside(asked: Wanted) -> dict[str, Any]:
        with bench.shelf.use(asked.model) as held:
            sites, reading = held.model.sites(), reading_code(held.name, inputs_code(held))
            modules = [
                {
                    "name": name,
                    "class": type(module).__name__,
                    "parameters": sum(p.numel() for p in module.parameters()),
                }
                for name, module in held.model.module.named_modules()
                if name
            ]
        rows = [
            {"site": row.site, "shape": " ".join(map(str, row.shape)), "verbs": list(row.verbs), "note": row.note}
            for row in sites
        ]
        return {
            "summary": held.summary(),
            "modules": modules[:MODULES],
            "more": max(0, len(modules) - MODULES),
            "sites": rows,
            "code": load_code(held.name) + "\n\nmodel.sites()\n",
            "reading": reading,
        }

    return routes
