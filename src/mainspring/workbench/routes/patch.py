"""Patch: the two maps of a pair of prompts, as they come, and the run behind a cell."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from mainspring.measure.heads import Heads
from mainspring.workbench.bench import Asked, Bench, Name, Text
from mainspring.workbench.code import patch_code
from mainspring.workbench.events import Send
from mainspring.workbench.figures.patch import Pair, What, patch_heads, patch_positions, patched_run
from mainspring.workbench.routes.look import as_data

__all__ = ["router"]


class Prompts(Asked):
    """A clean and another prompt, and their answers."""

    model: Name
    clean: Text
    other: Text
    answer: Text = ""
    other_answer: Text = ""


class Cell(Prompts):
    """A cell of one of the maps."""

    what: What
    layer: Annotated[int, Field(ge=0)]
    index: Annotated[int, Field(ge=0)]


def router(bench: Bench) -> APIRouter:
    routes = APIRouter(prefix="/api/patch")

    @routes.post("")
    def maps(asked: Prompts) -> Response:
        def work(send: Send) -> None:
            with bench.shelf.use(asked.model) as held:
                pair = _pair(held.model, asked)
                metric = f"logit of {pair.words[0]!r} less that of {pair.words[1]!r}"
                send("pair", {"tokens": pair.tokens, "changed": pair.changed, "words": pair.words, "metric": metric})
                for what, patch in (("position", patch_positions), ("head", patch_heads)):
                    if what == "head" and not len(Heads.of(held.model)):
                        send("without", {"what": what, "why": "this model offers no output of single heads"})
                        continue

                    def progress(done: int, whole: int, what: str = what) -> None:
                        send("progress", {"what": what, "done": done, "of": whole})

                    view = as_data(patch(held.model, pair, progress).view()) | {"value_title": "fall (logits)"}
                    code = _code(asked, patch.__name__)
                    send("map", {"what": what, "view": view, "code": code})
            send("end", {})

        return bench.stream(work)

    @routes.post("/cell")
    def cell(asked: Cell) -> dict[str, Any]:
        with bench.shelf.use(asked.model) as held:
            view = patched_run(held.model, _pair(held.model, asked), asked.what, asked.layer, asked.index)
        return {"view": as_data(view), "code": _code(asked, "patched_run", asked.what, asked.layer, asked.index)}

    return routes


def _pair(model: Any, asked: Prompts) -> Pair:
    return Pair.of(model, asked.clean, asked.other, asked.answer, asked.other_answer)


def _code(asked: Prompts, call: str, *more: Any) -> str:
    return patch_code(asked.model, asked.clean, asked.other, (asked.answer, asked.other_answer), call, *more)
