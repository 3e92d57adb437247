"""The bars of the copy organism: which heads serve which route, what is lost without them, and what they carry.

Heads are ranked on one set of sequences (FIND_SEED) and judged on others (JUDGE_SEED). The routes' heads are ranked by what they carry
(`effects`) and judged by putting them at their mean, which is another intervention; the heads that look one and two tokens back are
ranked by attention, those that keep a word from being said twice by what their mean does.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mainspring.measure.heads import Heads
from mainspring.organisms.copy.measures import (
    ablated,
    accuracy,
    batches,
    carried,
    effects,
    last_of_topic,
    looking,
    previous,
    repeated_mass,
    strongest,
    with_mean,
)
from mainspring.organisms.trained import Check
from mainspring.sites import at
from mainspring.tasks.copying import Batch, Kind

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["FIND_SEED", "JUDGE_SEED", "ROUTES", "attention", "find", "verify"]

FIND_SEED, JUDGE_SEED = 21, 22
ROUTES: dict[str, Kind] = {"token": "repeat", "backward": "reverse", "concept": "words"}
"""route -> the kind of sequences that it is for."""
BACK = {"before": 1, "two before": 2}
SHARE = 0.2
"""The heads of a group do at least this share of what its strongest head does."""
DRAWS = 5
"""Random sets that an ablation is compared with."""


Groups = dict[str, tuple[tuple[int, int], ...]]


def find(model: "Model") -> Groups:
    """Heads by what they do, the strongest first, on the sequences of FIND_SEED.

    before      look at the token before; two before: at the one before that
    token       carry what followed the current token the last time
    backward    carry what stood before the current token the last time (behind `back`)
    concept     carry the word of a number
    once        keep words that have been said from being said again (behind `set`)
    """
    given = {route: batches(kind, FIND_SEED) for route, kind in ROUTES.items()}
    groups = {name: strongest(previous(model, given["token"], back), 1.0) for name, back in BACK.items()}
    groups |= {route: strongest(effects(model, rows), SHARE) for route, rows in given.items()}
    return groups | {"once": strongest(_said_without(model, batches("topic", FIND_SEED, 64)), SHARE)}


def attention(model: "Model", groups: Groups) -> dict[str, float]:
    """How much the first head of a group looks where it should, on the sequences of JUDGE_SEED: of a route at the place that is copied, or
    one or two behind it, whichever is the most.
    """
    given = {route: batches(kind, JUDGE_SEED) for route, kind in ROUTES.items()}
    found = {name: float(previous(model, given["token"], back)[groups[name][0]]) for name, back in BACK.items()}
    return found | {
        route: max(float(looking(model, rows, shift)[groups[route][0]]) for shift in range(3)) for route, rows in given.items()
    }


def _said_without(model: "Model", given: list[Batch]) -> Tensor:
    """[layer, head] by how much words said before become likelier behind `set` when a head is put at its mean."""
    said = repeated_mass(model, given)
    heads = model.atlas.place(at.layers[0].attn.z).sizes["head"]
    table = [
        [repeated_mass(model, given, with_mean([(layer, head)])) - said for head in range(heads)]
        for layer in range(model.n_layers)
    ]
    return torch.tensor(table)


def verify(model: "Model") -> tuple[Check, ...]:
    """All bars, measured on the sequences of JUDGE_SEED."""
    found = find(model)
    given = {route: batches(kind, JUDGE_SEED) for route, kind in ROUTES.items()}
    once = batches("topic", JUDGE_SEED, 64)
    without = with_mean(found["once"])
    checks = [
        *(Check(f"{kind} accuracy", accuracy(model, given[route]), 0.95, ">=") for route, kind in ROUTES.items()),
        Check("the last word of a set", last_of_topic(model, once), 0.95, ">=", "seven of eight have been said"),
        Check("said again behind set", repeated_mass(model, once), 0.05, "<=", "probability of words said before"),
        Check("said again behind bag", repeated_mass(model, once, once=False), 0.3, ">=", "drawn with replacement: 0.39"),
        *(Check(f"attention of the first {name} head", value, 0.5, ">=") for name, value in attention(model, found).items()),
        Check("heads in two routes", _shared(found), 0, "<="),
        Check("said again behind set without its heads", repeated_mass(model, once, without), 0.3, ">="),
        Check("said again behind bag without its heads", repeated_mass(model, once, without, once=False), 0.3, ">="),
    ]
    return (*checks, *_losses(model, found, given), *_carrying(model, found))


def _losses(model: "Model", found: Groups, given: dict[str, list[Batch]]) -> list[Check]:
    """What a kind loses without its own heads, without those of other routes, and without random ones of the same layers."""
    full = {route: accuracy(model, given[route]) for route in ROUTES}

    def lost(heads: Sequence[tuple[int, int]], route: str) -> float:
        return full[route] - ablated(model, heads, given[route])

    checks: list[Check] = []
    for route, kind in ROUTES.items():
        others = max(lost(found[other], route) for other in ROUTES if other != route)
        late = [head for head in Heads.of(model) if head[0] and head not in found[route]]
        rest = Heads(tuple(late), tuple(late))
        draws = [rest.random(len(found[route]), seed).members for seed in range(DRAWS)]
        at_random = fmean(lost(heads, route) for heads in draws)  # pyright: ignore[reportArgumentType]
        checks += [
            Check(f"{kind} lost without {route} heads", lost(found[route], route), 0.5, ">="),
            Check(f"{kind} lost without another route's heads", others, 0.15, "<=", "the most of two"),
            Check(f"{kind} lost without random heads", at_random, 0.15, "<=", f"{DRAWS} draws behind the first layer"),
        ]
    before = lost((*found["before"], *found["two before"]), "token")
    return [*checks, Check("repeat lost without the heads that look back", before, 0.5, ">=")]


def _carrying(model: "Model", found: Groups) -> list[Check]:
    shares = carried(model, found["concept"], JUDGE_SEED)
    token = carried(model, found["token"], JUDGE_SEED)
    return [
        Check("concept carried into the other language", shares["source concept, base language"], 0.6, ">=", "by concept heads"),
        Check("base word still said", shares["base word"], 0.2, "<="),
        Check("concept carried by token heads", token["source concept, base language"], 0.1, "<="),
    ]


def _shared(found: Groups) -> int:
    heads = [head for route in ROUTES for head in found[route]]
    return len(heads) - len(set(heads))
