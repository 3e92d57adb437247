"""Steer: a direction made from two sets of texts or one that is known, the text it makes beside the untouched one, and how far it moves
other texts.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response
from torch import Tensor

from mainspring.errors import InputError, nearest
from mainspring.workbench.bench import Asked, Bench, Name, Text
from mainspring.workbench.code import between_code, file_code, off_target_code, organism_code, steer_code
from mainspring.workbench.events import Send
from mainspring.workbench.figures.directions import Direction, organism_directions, saved_directions
from mainspring.workbench.figures.look import room
from mainspring.workbench.figures.steer import add_direction, direction_between, fitted, off_target_view, state_norm
from mainspring.workbench.routes.look import as_data
from mainspring.workbench.shelf import Held

__all__ = ["router"]

Texts = Annotated[list[Text], Field(max_length=32)]


class Source(Asked):
    """A model, and a file of directions that was sent."""

    model: Name
    file: Name | None = None


class Steered(Source):
    """A prompt and a direction: one that is known by its name, else the difference of two sets of texts."""

    prompt: Text
    known: Text = ""
    plus: Texts = Field(default_factory=list)
    minus: Texts = Field(default_factory=list)
    layer: Annotated[int, Field(ge=0)]
    strength: Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)] = 1.0
    words: Annotated[int, Field(ge=1, le=256)] = 12
    others: Texts = Field(default_factory=list)


def router(bench: Bench) -> APIRouter:
    routes = APIRouter(prefix="/api/steer")

    @routes.post("/file")
    async def add(request: Request, called: str = "directions.safetensors") -> dict[str, str]:
        return {"file": bench.vectors.add(await request.body(), called[:200]), "called": called[:200]}

    @routes.post("/known")
    def known(asked: Source) -> list[dict[str, Any]]:
        """The directions that are known of a model: those of its truth, and those of a file."""
        held = bench.shelf.get(asked.model)
        return [
            {"name": one.name, "group": one.group, "layer": one.layer, "about": one.about, "norm": float(one.vector.norm())}
            for one in _known(bench, held, asked.file).values()
        ]

    @routes.post("")
    def steer(asked: Steered) -> Response:
        def work(send: Send) -> None:
            with bench.shelf.use(asked.model) as held:
                direction, lines = _direction(bench, held, asked)
                edit = add_direction(direction, asked.layer, asked.strength)
                words = min(asked.words, room(held.model, asked.prompt))
                state = state_norm(held.model, asked.prompt, asked.layer)
            code = steer_code(asked.model, asked.prompt, lines, asked.layer, asked.strength, words)
            send("start", {"code": code, "norm": float(direction.norm()), "state": state})
            for side, edits in (("steered", edit), ("untouched", None)):
                with held.lock:
                    stream = held.model.generate(asked.prompt, edits=edits, max_new_tokens=words, stream=True)
                try:
                    while True:
                        with held.lock:
                            step = next(stream, None)
                        if step is None:
                            break
                        send("word", {"side": side, "text": step.text[0] if step.text is not None else f"{int(step.tokens[0])} "})
                finally:
                    stream.close()
            if asked.others:
                with held.lock, held.reading():
                    view = off_target_view(held.model, edit, asked.others)
                values = [value for value in view.values if value is not None]
                send(
                    "off", {"view": as_data(view), "mean": sum(values) / len(values), "code": off_target_code(code, asked.others)}
                )
            send("end", {})

        return bench.stream(work)

    return routes


def _known(bench: Bench, held: Held, file: str | None) -> dict[str, Direction]:
    if file is not None:
        return saved_directions(bench.vectors.get(file).tensors, held.model.n_layers if held.model.map is not None else 0)
    return organism_directions(held.name)


def _direction(bench: Bench, held: Held, asked: Steered) -> tuple[Tensor, list[str]]:
    """The direction that is asked for, and the lines that make it."""
    if not asked.known:
        made = direction_between(held.model, asked.plus, asked.minus, asked.layer)
        return made, between_code(asked.plus, asked.minus, asked.layer)
    there = _known(bench, held, asked.file)
    if asked.known not in there:
        raise InputError(f"there is no direction {asked.known!r}{nearest(asked.known, there)}")
    vector = fitted(held.model, there[asked.known], asked.layer)
    if asked.file is not None:
        return vector, file_code(bench.vectors.get(asked.file).called, asked.known)
    return vector, organism_code(held.name, asked.known)
