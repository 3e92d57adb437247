"""What the guard organism says, through which token it knows, and which directions mean harm and refusal, written out on sites alone.

Requests are batches of `mainspring.tasks.guard.draw`. t_inst is the request's last word, t_post the token before the reply.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.edits import Edits
from mainspring.sites import at
from mainspring.tasks.guard import SETS, WORDS, Kind, Requests, Set, draw

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = [
    "FIND_SEED",
    "JUDGE_SEED",
    "accuracy",
    "balanced",
    "directions",
    "drawn",
    "first_word",
    "kept_without",
    "moved",
    "sided",
    "steered",
]

FIND_SEED, JUDGE_SEED = 31, 33
"""Layers were chosen by a look at requests of seed 32, which nothing else uses."""
T_INST = Requests.T_INST


def drawn(kind: Kind, seed: int, which: Set | None = None, count: int = 96, held: bool = True) -> Requests:
    """Requests of one kind (and set); of pairs of verb and object that were never taught, by default."""
    return draw(kind, count, torch.Generator().manual_seed(seed), which, held)


def accuracy(model: "Model", given: Requests) -> float:
    """The share of replies whose every token is the likeliest."""
    said = model.run(given.ids[:, :-1], read=at.logits)[at.logits][:, -given.told :].argmax(-1).cpu()
    return float((said == given.reply).all(1).float().mean())


def first_word(model: "Model", given: Requests, edits: Any = None) -> Tensor:
    """[row] the token that the reply begins with."""
    return model.run(given.prompt, edits=edits, read=at.logits)[at.logits][:, -1].argmax(-1).cpu()


def moved(
    model: "Model", base: Requests, source: Requests, layers: Any, positions: Sequence[int], part: str = "resid_pre"
) -> float:
    """The share of rows that begin as the source's reply when these positions carry the source's values."""
    site = getattr(at.layers[layers], part)(pos=list(positions))
    trace = model.run(source.prompt, read=site)
    return _share(first_word(model, base, Edits([site.patch(trace)])), source)


def kept_without(model: "Model", base: Requests, source: Requests) -> float:
    """The share of replies that stay when all of the request comes from the source but its last word, which is held."""
    held, rest = at.layers[:].resid_pre(pos=T_INST), at.layers[:].resid_pre(pos=list(range(1, T_INST)))
    mine, theirs = model.run(base.prompt, read=held), model.run(source.prompt, read=rest)
    return _share(first_word(model, base, Edits([rest.patch(theirs), held.patch(mine)])), base)


def directions(
    model: "Model", pos: int, one: Sequence[Set], other: Sequence[Set], seed: int = FIND_SEED
) -> tuple[Tensor, Tensor]:
    """Mean state at a position of plain requests of some sets, and of some others, [layer, d] each; of taught pairs."""

    def mean(sets: Sequence[Set]) -> Tensor:
        return torch.stack([_states(model, drawn("reply", seed, w, 128, held=False), pos).mean(1) for w in sets]).mean(0)

    return mean(one), mean(other)


def sided(model: "Model", pos: int, means: tuple[Tensor, Tensor], which: Set, layers: slice = slice(0, None)) -> float:
    """The share of a set's requests that lie nearer, in cosine summed over layers, to the first of two means."""
    states = _states(model, drawn("reply", JUDGE_SEED, which), pos)
    one, other = (torch.cosine_similarity(states, mean[:, None], dim=-1)[layers].mean(0) for mean in means)
    return float((one > other).float().mean())


def steered(
    model: "Model", kind: Kind, which: Set, layer: int, direction: Tensor, wanted: str, scale: float = 1.0, pos: Any = T_INST
) -> float:
    """The share of replies that begin with a word when a direction is added at the request's last word, after one layer."""
    given = drawn(kind, JUDGE_SEED, which)
    said = first_word(model, given, at.layers[layer].resid_post(pos=pos).add(scale * direction))
    return float((said == WORDS.index(wanted)).float().mean())


def balanced(model: "Model", pos: int, means: tuple[Tensor, Tensor], by: str, layers: slice = slice(0, None)) -> float:
    """How often `sided` is right on the sets in which harm and refusal differ (C, D), when it stands for `by`."""
    c, d = (sided(model, pos, means, which, layers) for which in SETS[2:])
    return fmean((c, 1 - d)) if by == "harm" else fmean((1 - c, d))


def _states(model: "Model", given: Requests, pos: int) -> Tensor:
    site = at.layers[:].resid_post(pos=pos)
    states = model.run(given.prompt, read=site)[site]  # [layer, row, (1,) d]
    return states.reshape(states.shape[0], len(given.ids), -1).float().cpu()


def _share(said: Tensor, given: Requests) -> float:
    return float((said == given.reply[:, 0]).float().mean())
