"""Which stories tell the belief organism's explanations apart.

All pairs ask the same question of the same people and containers; a content-matching network sees no difference but in the drinks.

    third     the source tells the clauses in the other order, and pours other drinks. Whoever points says neither the base's answer nor
              the source's, but the base's other drink (`pointer`); whoever holds the drink itself says the source's (`value`)
    clauses   the source tells the clauses in the other order, drinks and all. Whoever holds which clause comes first says the base's
              other drink (`order`); whoever holds people, containers and drinks says the base's answer
    drinks    the source pours other drinks, and tells all else alike: whoever holds the drink says the source's answer (`value`)
    sight     the source has `sees` where the base has `misses`, and asks the one who watches what the other filled
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from mainspring.measure.interchange import exchange
from mainspring.organisms.boxes.exchange import Pair, said
from mainspring.sites import at
from mainspring.tasks.belief_stories import CONTAINERS, DRINK, DRINKS, PEOPLE, SIGHTS, Sight, draw, stories
from mainspring.tasks.stories import Stories, orders

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["CONTENT", "FIND_SEED", "JUDGE_SEED", "Change", "along", "drawn", "pairs", "pointer_directions"]

Change: TypeAlias = Literal["third", "clauses", "drinks", "sight"]
FIND_SEED, JUDGE_SEED = 51, 52
CONTENT = ("drink", "stop", "sight stop")
"""Where the drink that answers stands in the story, behind layer 0."""


def drawn(sight: Sight, seed: int, count: int = 256, held: bool = True) -> Stories:
    """Stories of one kind, by default about a container with a drink that it never held."""
    return draw(sight, count, torch.Generator().manual_seed(1000 * seed + SIGHTS.index(sight)), held)


def pairs(change: Change, seed: int, rows: int = 128) -> Pair:
    """Pairs of stories in which somebody sees (or, in the base of `sight`, misses) somebody."""
    generator = torch.Generator().manual_seed(seed)
    drinks = orders(rows, len(DRINKS), 4, generator)
    watcher, thinker, asked = torch.randint(2, (3, rows), generator=generator)
    thinker = torch.where(asked == watcher, watcher, thinker)  # so that the answer is known
    if change == "sight":
        thinker, asked = watcher, 1 - watcher
    people, containers = orders(rows, len(PEOPLE), 2, generator), orders(rows, len(CONTAINERS), 2, generator)
    told = {"people": people, "containers": containers, "drinks": drinks[:, :2]}
    who = {"watcher": watcher, "thinker": thinker, "asked": asked}
    base = stories("misses" if change == "sight" else "sees", **told, **who)
    if change == "sight":
        source = stories("sees", **told, **who)
        return Pair(base, source, {"base": base.answer, "told": source.answer})
    if change == "drinks":
        source = stories("sees", **{**told, "drinks": drinks[:, 2:]}, **who)
        return Pair(base, source, {"base": base.answer, "value": source.answer})
    other = DRINK + drinks[:, :2].gather(1, 1 - asked[:, None])[:, 0]
    flipped = {name: values.flip(1) for name, values in told.items()} | {name: 1 - values for name, values in who.items()}
    if change == "clauses":
        return Pair(base, stories("sees", **flipped), {"base": base.answer, "order": other})
    source = stories("sees", **{**flipped, "drinks": drinks[:, 2:]})
    return Pair(base, source, {"base": base.answer, "pointer": other, "value": source.answer})


def pointer_directions(model: "Model", layer: int, rows: int = 256) -> Tensor:
    """[2, d] from the mean state at the prompt's end of stories whose first clause answers: to that of the second, and of `unknown`."""
    site = at.layers[layer].resid_post(pos=-1)
    states, pointers = list[Tensor](), list[Tensor]()
    for sight in SIGHTS[1:]:
        given = drawn(sight, FIND_SEED, rows, held=False)
        states.append(model.run(given.prompt, read=site)[site].cpu())
        pointers.append(given.parts["pointer"][:, -1])
    every, pointer = torch.cat(states), torch.cat(pointers)
    means = torch.stack([every[pointer == k].mean(0) for k in range(3)])
    return means[1:] - means[0]


def along(model: "Model", pair: Pair, layer: int, directions: Tensor) -> dict[str, float]:
    """How often each of the pair's answers is said when the prompt's end holds the source's state along some directions alone."""
    site = at.layers[layer].resid_post(pos=-1)
    source = model.run(pair.source.prompt, read=site)
    answer = said(model, pair.base, exchange(source, [site], directions))
    return {name: float((answer == wanted).float().mean()) for name, wanted in pair.answers.items()}
