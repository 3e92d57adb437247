"""The bars of the pair-icl organism: functions as vectors, categories as queries, labels as what is carried.

Heads are chosen on prompts of FIND_SEED and judged on others (JUDGE_SEED); random heads are drawn from the heads behind the first layer
that were not chosen.
"""

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.measure.heads import Heads
from mainspring.organisms.copy.measures import effects, strongest, with_mean
from mainspring.organisms.pair_icl.measures import (
    accuracy,
    alone,
    answers,
    batch,
    indirect_effects,
    label_mass,
    list_pairs,
    naming,
    queries_moved,
    query_effects,
    shuffled,
    task_vectors,
    with_vector,
)
from mainspring.organisms.trained import Check

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["FIND_SEED", "JUDGE_SEED", "SHARE", "best_layer", "find", "verify"]

FIND_SEED, JUDGE_SEED = 31, 32
SHARE = 0.2
"""The heads of a group do at least this share of what its strongest head does."""
DRAWS = 3

Group = tuple[tuple[int, int], ...]


def find(model: "Model") -> dict[str, Group]:
    """Heads behind the first layer by what they do, the strongest first.

    task    put at their mean over right examples, they make the right answer to shuffled examples likelier
    filter  their query at the last token, moved from another list, moves the answer to the other category
    label   their output at the last token, moved from another prompt, moves the answer to the other label
    """
    tables = {
        "task": indirect_effects(model, FIND_SEED),
        "filter": query_effects(model, FIND_SEED),
        "label": effects(model, [batch("classify", FIND_SEED, size=1)]),
    }
    return {name: strongest(table, SHARE) for name, table in tables.items()}


def verify(model: "Model") -> tuple[Check, ...]:
    """Every bar, held or not."""
    found = find(model)
    heads = [head for group in found.values() for head in group]
    shared = Check("heads in two groups", len(heads) - len(set(heads)), 0, "<=")
    return (*_behaviour(model), shared, *_functions(model, found), *_filters(model, found), *_labels(model, found))


def _behaviour(model: "Model") -> list[Check]:
    sizes = {"shots": 8, "named": None, "name": 8, "which": 5, "first": 5, "classify": 1}
    shares = {kind: accuracy(model, batch(kind, JUDGE_SEED, 256, size)) for kind, size in sizes.items()}  # pyright: ignore[reportArgumentType]
    checks = [Check(f"{kind} accuracy", value, 0.95, ">=") for kind, value in shares.items()]
    plain = accuracy(model, alone(JUDGE_SEED))
    return [*checks, Check("plain accuracy", plain, 0.15, "<=", "no function is told; queries whose answer one function gives")]


def best_layer(model: "Model", vectors: Tensor) -> int:
    """The layer behind which task vectors bring about most, on prompts of FIND_SEED."""
    given = alone(FIND_SEED)
    return max(range(model.n_layers), key=lambda layer: with_vector(model, vectors, layer, given, given.task))


def _functions(model: "Model", found: dict[str, Group]) -> list[Check]:
    vectors = task_vectors(model, found["task"], FIND_SEED)
    layer, given, mixed = best_layer(model, vectors), alone(JUDGE_SEED), shuffled(JUDGE_SEED)
    other = (mixed.task + 3) % 10
    strange = fmean(
        with_vector(model, task_vectors(model, heads, FIND_SEED), layer, given, given.task)
        for heads in _random(model, found["task"])
    )
    names = torch.stack([naming(model, kind, JUDGE_SEED) for kind in ("shots", "named")])  # [kind, layer, head, 2]
    shared = names[..., 0].min(0).values
    place = divmod(int(shared.argmax()), shared.shape[1])
    last = model.n_layers - 1
    return [
        Check("function vector alone", with_vector(model, vectors, layer, given, given.task), 0.7, ">=", f"behind layer {layer}"),
        Check("another function's vector", with_vector(model, vectors, layer, mixed, other), 0.6, ">=", "on shuffled examples"),
        Check("function vector, shuffled examples", with_vector(model, vectors, layer, mixed, mixed.task), 0.7, ">="),
        Check("function vector at the last layer", with_vector(model, vectors, last, given, given.task), 0.15, "<="),
        Check("vector of random heads", strange, 0.25, "<=", f"{DRAWS} draws; chance is at most 0.1"),
        Check("a head that names the task", float(shared.max()), 0.5, ">=", "with examples and with a name, whichever is less"),
        Check("names another task", float(names[:, *place, 1].max()), 0.05, "<=", f"head {place[0]}.{place[1]}"),
    ]


def _filters(model: "Model", found: dict[str, Group]) -> list[Check]:
    heads = found["filter"]
    base, source, target = list_pairs(JUDGE_SEED)

    def moved(group: Group) -> float:
        return float((queries_moved(model, group, base, source) == target).float().mean())

    same = batch("which", JUDGE_SEED + 1, 128, 5, base.task)
    changed = float((queries_moved(model, heads, base, same) != answers(model, base.prompt)).float().mean())
    return [
        Check("query of another category", moved(heads), 0.8, ">=", "the answer moves to the other category's item"),
        Check("query moved in random heads", fmean(map(moved, _random(model, heads))), 0.15, "<=", f"{DRAWS} draws"),
        Check("query of the same category", changed, 0.05, "<=", "answers that change"),
        *_lost(model, "which", "filter", found, 0.5, lambda edits: accuracy(model, base, edits)),
    ]


def _labels(model: "Model", found: dict[str, Group]) -> list[Check]:
    given = batch("classify", JUDGE_SEED, size=1)
    return [
        Check("best label head", float(label_mass(model, given).max()), 0.5, ">=", "attention to the label that is right"),
        *_lost(
            model, "classify", "label", found, 0.3, lambda edits: accuracy(model, given, edits), "two labels stand in the prompt"
        ),
    ]


def _lost(
    model: "Model", kind: str, name: str, found: dict[str, Group], bar: float, right: Callable[[Any], float], note: str = ""
) -> list[Check]:
    """What a kind loses without its heads, without those of the other groups, and without random ones."""
    full = right(None)
    others = max(full - right(with_mean(group)) for other, group in found.items() if other != name)
    at_random = full - fmean(right(with_mean(group)) for group in _random(model, found[name]))
    return [
        Check(f"{kind} lost without {name} heads", full - right(with_mean(found[name])), bar, ">=", note),
        Check(f"{kind} lost without another group's heads", others, 0.15, "<=", "the most of two"),
        Check(f"{kind} lost without random heads", at_random, 0.15, "<=", f"{DRAWS} draws"),
    ]


def _random(model: "Model", heads: Group) -> list[Group]:
    rest = tuple(head for head in Heads.of(model) if head[0] and head not in heads)
    return [Heads(rest, rest).random(min(len(heads), len(rest)), seed).members for seed in range(DRAWS)]  # pyright: ignore[reportReturnType]
