"""Tables of the card: where the object comes from, what travels in which layer, and what edits do at every layer."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mainspring.organisms.facts.measures import FIND_SEED, JUDGE_SEED, pairs, role_table
from mainspring.organisms.facts_mamba.editing import drawn, edited
from mainspring.organisms.facts_mamba.measures import COLUMNS, knocked_out, shares, told, trace

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["tables"]


def tables(model: "Model") -> str:
    """Three sections in Markdown."""
    layers = range(model.n_layers)
    parts = [*(("ssm.out", (layer,)) for layer in layers), ("ssm.out", (0, 1)), ("resid_post", (1,)), ("ssm.out", (2, 3))]
    return "\n\n".join([role_table(model, parts), *_traced(model), *_heard(model), *_edits(model)])


def _traced(model: "Model") -> Iterable[str]:
    given = pairs("stranger", JUDGE_SEED, 16)
    yield "## Traced"
    yield (
        "The share of all positive effect when one value of the source is put into the base prompt (rows: layers). The last columns: the "
        "same of `resid_post` while the mixers of later layers keep the base's output at that token, as a share of the effect with nothing "
        "held."
    )
    whole = [trace(model, pair) for pair in given]
    severed = [trace(model, pair, held="ssm.out") for pair in given]
    total = sum(float(found.clamp(min=0).sum()) for found in whole)
    left = sum(float(found.clamp(min=0).sum()) for found in severed)
    found = (
        shares(whole, given),
        shares([trace(model, pair, "ssm.out") for pair in given], given),
        shares(severed, given) * left / total,
    )
    head = [f"{part} {column}" for part in ("resid_post", "ssm.out", "held") for column in COLUMNS]
    yield _table(
        ["layer", *head], [[str(k), *(f"{v:.2f}" for one in found for v in one[k].tolist())] for k in range(model.n_layers)]
    )


def _heard(model: "Model") -> Iterable[str]:
    given = pairs("stranger", JUDGE_SEED, 16)
    yield "## What later tokens hear"
    yield (
        "A token's `ssm.in` exchanged while its own states stay: how often the source's object is said; and in brackets how much "
        "probability the base's object loses when later tokens hear the average row instead."
    )
    columns = COLUMNS[:-1]
    rows = [(str(k), (k,)) for k in range(model.n_layers)] + [(f"{k} and on", tuple(range(k, model.n_layers))) for k in range(3)]
    cells = [
        [name, *(f"{told(model, given, c, chosen):.2f} ({knocked_out(model, given, c, chosen):.2f})" for c in columns)]
        for name, chosen in rows
    ]
    yield _table(["layers", *columns], cells)


def _edits(model: "Model") -> Iterable[str]:
    facts = drawn(FIND_SEED, 4)
    yield "## Facts rewritten by a change of rank one"
    yield (
        "Of 16 find facts, each edited for itself in the output matrix of one layer, keyed at one role: the new object likelier in the "
        "edited prompt, in other prompts of the fact; the old one likelier still for others who have it; other facts of the person said."
    )
    places = [*((layer, "last") for layer in range(model.n_layers)), (1, "first"), (1, "end"), (3, "end")]
    found = [(layer, role, edited(model, facts, layer, role)) for layer, role in places]
    head = ["layer", "role", "rewritten", "paraphrases", "neighbours", "other relations"]
    rows = [[str(k), role, *(f"{getattr(o, name.replace(' ', '_')):.2f}" for name in head[2:])] for k, role, o in found]
    yield _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
