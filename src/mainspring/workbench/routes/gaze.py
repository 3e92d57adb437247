"""Gaze: images with their regions, heads that look at what is described, and texts that are written while somebody points."""

import logging
from random import Random
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field
from starlette.responses import Response

from mainspring.errors import InputError, MainspringError
from mainspring.find.gaze import gaze_heads
from mainspring.measure.scores import Scores
from mainspring.tasks.comic_strips import comics
from mainspring.tasks.regions import RegionItem
from mainspring.workbench.bench import Asked, Bench, Name, Text
from mainspring.workbench.code import gaze_code, heads_code
from mainspring.workbench.events import Gone, Send
from mainspring.workbench.gazing import Aim, Gazing
from mainspring.workbench.images import BUILT_IN, Shown
from mainspring.workbench.prompting import image_tokens, is_comic, lack_of_images, prompts_for
from mainspring.workbench.routes.look import as_data
from mainspring.workbench.shelf import Held

__all__ = ["router", "warm"]

_log = logging.getLogger(__name__)

Fraction = Annotated[float, Field(ge=0, le=1)]
Session = Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]
Which = Literal["top", "bottom", "random", "all", "none"]
Side = Annotated[int, Field(ge=1, le=8)]


def _not_empty(target: tuple[float, ...]) -> tuple[float, ...]:
    if len(target) == 4 and (target[0] >= target[2] or target[1] >= target[3]):
        raise ValueError("the box is empty: it is (left, top, right, bottom)")
    return target


Target = Annotated[tuple[Fraction, Fraction] | tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_not_empty)]


class Where(Asked):
    """An image, and how one that was sent is cut in panels."""

    model: Name
    image: Name = BUILT_IN[0]
    rows: Side = 2
    columns: Side = 3
    question: Text = ""
    """How a panel is asked for, with {} for its number; needed for models that are no comics model."""


class Telling(Where):
    """A text to write."""

    prompt: Text
    target: Target | None = None
    which: Which = "top"
    top: Annotated[int, Field(ge=1, le=512)] = 12
    words: Annotated[int, Field(ge=1, le=256)] = 3
    pace: Annotated[float, Field(ge=0, le=50)] = 0.0
    session: Session | None = None
    """What it is called, so that it can be pointed from its first moment on; without one it gets a name."""


class Pointing(Asked):
    """Where to look from the next word on."""

    session: Name
    target: Target | None = None
    turn: Annotated[int, Field(ge=1)] | None = None
    """How often this text was pointed; a look that comes behind a later one counts for nothing."""


def router(bench: Bench) -> APIRouter:
    routes = APIRouter(prefix="/api/gaze")

    @routes.get("/images")
    def built_in() -> list[dict[str, Any]]:
        return [bench.images.get(name).to_data() for name in BUILT_IN]

    @routes.post("/image")
    async def add(request: Request, rows: Side = 2, columns: Side = 3) -> dict[str, Any]:
        body = await request.body()
        return bench.images.get(bench.images.add(body), (rows, columns)).to_data()

    @routes.post("/heads")
    def heads(asked: Where) -> dict[str, Any]:
        shown = bench.images.get(asked.image, (asked.rows, asked.columns))
        with bench.shelf.use(asked.model) as held:
            shown = shown.fitted(held.model)
            scores = _scores(held, asked, shown)
            prompts = prompts_for(held)
            comic = is_comic(held)
        shuffled = scores.controls.get("shuffled labels")
        return {
            "view": as_data(scores.view()),
            "ranked": scores.top(scores.values.numel()),
            "best": scores[scores.top(1)[0]],
            "shuffled": None if shuffled is None else float(torch.as_tensor(shuffled).max()),
            "prompts": {"answer": prompts.answer, "narrate": prompts.narrate},
            "words": dict(zip(("answer", "narrate"), prompts.words, strict=True)),
            "top": _how_many(scores.values.numel(), comic),
            "question": asked.question or prompts.question,
            "code": heads_code(asked.model, comic=comic, question=asked.question or prompts.question, shown=shown),
        }

    @routes.post("/tell")
    def tell(asked: Telling) -> Response:
        aim = Aim(asked.target, asked.session or "")

        def work(send: Send) -> None:
            if asked.which == "none":
                write(send)
            else:
                with bench.following(aim):
                    write(send)

        def write(send: Send) -> None:
            shown = bench.images.get(asked.image, (asked.rows, asked.columns))
            with bench.shelf.use(asked.model) as held:
                shown = shown.fitted(held.model)
                ranked = [(layer, head) for layer, head in _scores(held, asked, shown).top(100_000)]
            top = ranked[: asked.top]
            moved = _choose(ranked, asked.which, asked.top)
            code = gaze_code(asked.model, shown, asked.prompt, moved, asked.target, asked.words)
            send("code", {"code": code, "heads": moved})
            Gazing(held, shown, asked.prompt, moved, top, aim, asked.words, asked.pace).run(send)

        return bench.stream(work)

    @routes.post("/look")
    def look(asked: Pointing) -> dict[str, bool]:
        bench.aim(asked.session).look(asked.target, asked.turn)
        return {"looking": True}

    return routes


def warm(bench: Bench) -> None:
    """Open the model that the page shows first, find its heads and point them once: a hover then does nothing for the first time.

    It gives way: who wants the model while it points waits for one token at most, and the rest is left out. What goes wrong is told when
    the model is asked for.
    """
    name = bench.names[0] if bench.names else "organism:comics"
    try:
        with bench.shelf.use(name) as held:
            if not is_comic(held) or held.model.processor is None:
                return
            heads = [(layer, head) for layer, head in _comic_scores(held).top(8)]
        shown = bench.images.get(BUILT_IN[0]).fitted(held.model)
        aim = Aim(shown.regions[0])

        def told(*_: object) -> None:
            if held.lock.wanted or bench.closing.is_set():
                raise Gone
            aim.look(shown.regions[1])

        Gazing(held, shown, prompts_for(held).narrate, heads, heads, aim, 3).run(told)
    except (Gone, MainspringError):
        pass
    except Exception:
        _log.warning("the workbench could not prepare %s", name, exc_info=True)


def _scores(held: Held, asked: Where, shown: Shown) -> Scores:
    """The gaze scores of a model, found once."""
    if lack := lack_of_images(held):
        raise InputError(lack)
    if is_comic(held):
        return _comic_scores(held)
    question = asked.question or prompts_for(held).question
    if "{}" not in question:
        raise InputError("to find heads of this model, write a question with {} for the panel, such as 'Describe panel {}:'")
    key = ("gaze", shown.name, asked.rows, asked.columns, question)
    if key not in held.known:
        names = [question.replace("{}", str(i + 1)) for i in range(len(shown.regions))]
        image_tokens(held, names[0], shown)  # refuses what holds no image, in clear words
        items = [RegionItem(name, shown.image, shown.regions, i) for i, name in enumerate(names)]
        # one at a time: some processors take the images of a batch for those of its first text
        held.known[key] = gaze_heads(held.model, items, batch=1)
    return held.known[key]


def _comic_scores(held: Held) -> Scores:
    if "gaze" not in held.known:
        held.known["gaze"] = gaze_heads(held.model, comics(12))
    return held.known["gaze"]


def _how_many(heads: int, comic: bool) -> dict[str, int]:
    """How many heads are moved to begin with: what is right for a comics model was found on it, others get a sixth."""
    if comic:
        return {"answer": min(12, -(-3 * heads // 8)), "narrate": min(8, heads // 4 or 1)}
    return dict.fromkeys(("answer", "narrate"), max(1, min(100, heads // 6)))


def _choose(ranked: list[tuple[int, int]], which: Which, top: int) -> list[tuple[int, int]]:
    """The heads that are moved: the best, or a control of the same size."""
    return {
        "top": ranked[:top],
        "bottom": ranked[-top:],
        "random": Random(0).sample(ranked, min(top, len(ranked))),
        "all": ranked,
        "none": [],
    }[which]
