"""Which stories tell the boxes organism's explanations apart.

    thing   the source has other objects in the same boxes: whoever carries the value says the source's object
    query   the source asks for another box: whoever carries the label says what lies in that box
    free    other objects, the same boxes in another order, another question. Exchanged at the prompt's end, one answer each for four
            explanations: nothing moves (`base`), the place of the clause in the story (`place`), the label of the box (`label`), or the
            object itself (`value`)

Four explanations behave alike on every story, and differ in every row of `free`.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mainspring.organisms.boxes.exchange import Pair, accuracy, shares
from mainspring.sites import at
from mainspring.tasks.box_stories import BOXES, KINDS, OBJECT, OBJECTS, Kind, draw, stories
from mainspring.tasks.stories import Stories, collected, orders

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["BINDING", "FIND_SEED", "JUDGE_SEED", "drawn", "pairs", "smallest", "worst"]

FIND_SEED, JUDGE_SEED = 41, 42
BINDING = ("label", "stop")
"""Where a clause's object and box are bound."""


def drawn(kind: Kind, seed: int, size: int = 5, count: int = 256, held: bool = True) -> Stories:
    """Stories of one size, by default with an answer in a box where it never lay."""
    return draw(kind, count, torch.Generator().manual_seed(1000 * seed + 10 * size + KINDS.index(kind)), size, held)


def worst(model: "Model", kind: Kind, seed: int = JUDGE_SEED) -> float:
    """The accuracy on held-out stories of the size that is answered worst."""
    return min(accuracy(model, drawn(kind, seed, size)) for size in (3, 5, 7))


def smallest(model: "Model", layer: int, answer: str, bar: float = 0.95) -> Sequence[int]:
    """The fewest heads of a layer that, exchanged at the prompt's end of `free` stories to find on, have one explanation's answer said
    in a share `bar` of them; of several such sets the best. All heads, where no set does.
    """
    pair, every = pairs("free", FIND_SEED), range(model.config.num_attention_heads)
    for size in range(1, len(every) + 1):
        found = {
            heads: shares(model, pair, [(at.layers[layer].attn.z(head=list(heads)), "end")])[answer]
            for heads in combinations(every, size)
        }
        best = max(found, key=lambda heads: found[heads])
        if found[best] >= bar:
            return best
    return tuple(every)


def pairs(change: Literal["thing", "query", "free"], seed: int, rows: int = 128, size: int = 5) -> Pair:
    """Pairs of told stories that differ in one thing, or in all."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        many = 4 * rows
        things = orders(many, len(OBJECTS), 2 * size, generator)
        asked = orders(many, size, 2, generator)
        boxes = orders(many, len(BOXES), size, generator)
        turned = boxes.gather(1, orders(many, size, size, generator))
        parts = {"objects": things[:, :size], "others": things[:, size:], "boxes": boxes, "turned": turned}
        parts |= {"asked": asked[:, 0], "instead": asked[:, 1]}
        wanted = _clause(boxes, turned.gather(1, asked[:, 1:])[:, 0])
        return parts, (wanted != asked[:, 0]) & (wanted != asked[:, 1])

    p = collected(rows, drawn)
    base = stories(p["objects"], p["boxes"], p["asked"])
    if change == "thing":
        source = stories(p["others"], p["boxes"], p["asked"])
        return Pair(base, source, {"base": base.answer, "value": source.answer})
    if change == "query":
        source = stories(p["objects"], p["boxes"], p["instead"])
        return Pair(base, source, {"base": base.answer, "label": source.answer})
    source = stories(p["others"], p["turned"], p["instead"])
    label = _clause(p["boxes"], p["turned"].gather(1, p["instead"][:, None])[:, 0])
    place, told = (OBJECT + p["objects"].gather(1, which[:, None])[:, 0] for which in (p["instead"], label))
    return Pair(base, source, {"base": base.answer, "place": place, "label": told, "value": source.answer})


def _clause(boxes: Tensor, box: Tensor) -> Tensor:
    """[row] which clause names a box."""
    return (boxes == box[:, None]).int().argmax(1)
