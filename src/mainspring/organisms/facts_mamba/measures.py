"""Where the Mamba twin keeps its facts and how they travel, written out on sites.

Base and source are prompts about two subjects, alike word for word elsewhere; p is the probability of the source's object.

    trace      (p(base with one value of the source) - p(base)) / (p(source) - p(base))            for every layer and token
    told       how often the source's object is said when later tokens hear the source's of one token, whose own states stay
    knock-out  p(base's object) lost when later tokens hear the average row's token in its place
    retained   y[i] = silu(gate[i]) (sum over j <= i of C[i] . exp(A (t[i] - t[j])) dt[j] B[j] x[j] + D x[i]),    t = cumulated dt

A mixer has no attention to cut: tokens meet in its convolution and in its scan, both behind `ssm.in`. What later tokens hear of
token s in a layer is so changed by an edit of `ssm.in` at s, while the mixer's answer to s itself, `ssm.y` at s, is held.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from mainspring.edits import Edit
from mainspring.measure.metrics import probability
from mainspring.organisms.facts.measures import Pair
from mainspring.sites import at

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["COLUMNS", "apart", "columns", "knocked_out", "retained", "shares", "told", "trace"]

END = at.logits(pos=-1)
COLUMNS = ("first", "last", "between", "end")
"""The subject's two tokens, those between it and the prompt's end, and the end. What stands before it is alike in base and source."""


def columns(pair: Pair) -> dict[str, range]:
    """The positions of every column; one shape has none `between`."""
    first, last, end = (pair.place(role) for role in ("first", "last", "end"))
    return {
        "first": range(first, last),
        "last": range(last, last + 1),
        "between": range(last + 1, end),
        "end": range(end, end + 1),
    }


def trace(model: "Model", pair: Pair, part: str = "resid_post", held: str = "") -> Tensor:
    """[layer, pos]: how far one value of the source, put into the base prompt, brings the source's object; a mean over rows.

    `held`: a part that keeps the base's value at the same token in all later layers, so that what it passes on does not count.
    """
    layers, length, metric = range(model.n_layers), pair.base.ids.shape[1], probability(pair.source.answer)
    source = model.run(pair.source.ids, read=[at[f"layers.*.{part}"], at.logits])
    base = model.run(pair.base.ids, read=[at[f"layers.*.{held or part}"], at.logits])

    def cell(layer: int, pos: int) -> list[Edit]:
        later = [at[f"layers.{k}.{held}"](pos=pos).patch(base) for k in layers if held and k > layer]
        return [at[f"layers.{layer}.{part}"](pos=pos).patch(source), *later]

    swept = model.sweep(pair.base.ids, [cell(layer, pos) for layer in layers for pos in range(length)], metric)
    low, high = metric(base).mean(), metric(source).mean()
    return ((swept.values.mean(-1) - low) / (high - low)).reshape(len(layers), length).cpu()


def shares(traces: Sequence[Tensor], given: Sequence[Pair]) -> Tensor:
    """[layer, column]: each cell's part of all positive effect, over the prompts' shapes; tokens of a column are added up."""
    total = torch.zeros(len(traces[0]), len(COLUMNS))
    for found, pair in zip(traces, given, strict=True):
        positive = found.clamp(min=0)
        total += torch.stack([positive[:, list(places)].sum(1) for places in columns(pair).values()], 1)
    return total / total.sum()


def told(model: "Model", given: Sequence[Pair], column: str, layers: Sequence[int]) -> float:
    """How often the source's object is said when, in these layers, later tokens hear the source's of a column, which itself stays."""
    right: list[float] = []
    for pair in given:
        source = model.run(pair.source.ids, read=[at[f"layers.{layer}.ssm.in"] for layer in layers])
        edits = _heard(model, pair, column, layers, lambda site, source=source: site.patch(source))
        said = model.run(pair.base.ids, edits=edits, read=END)[END].argmax(-1).cpu()
        right.append(float((said == pair.source.answer).float().mean()))
    return fmean(right)


def knocked_out(model: "Model", given: Sequence[Pair], column: str, layers: Sequence[int]) -> float:
    """How much probability the base's object loses when, in these layers, later tokens hear of a column what is common to all rows."""
    lost: list[float] = []
    for pair in given:
        metric = probability(pair.base.answer)
        edits = _heard(model, pair, column, layers, lambda site: site.ablate("mean", over="batch"))
        cut, whole = (metric(model.run(pair.base.ids, edits=found, read=at.logits)) for found in (edits, None))
        lost.append(float((whole - cut).mean()))
    return fmean(lost)


def _heard(model: "Model", pair: Pair, column: str, layers: Sequence[int], change: Callable[[Any], Edit]) -> list[Edit]:
    places = list(columns(pair)[column])
    if not places:
        return []
    base = model.run(pair.base.ids, read=[at[f"layers.{layer}.ssm.y"] for layer in layers])
    changed = [change(at[f"layers.{layer}.ssm.in"](pos=places)) for layer in layers]
    return [*changed, *(at[f"layers.{layer}.ssm.y"](pos=places).patch(base) for layer in layers)]


def retained(model: "Model", ids: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """(terms [row, i, j, channel]: what the scan at token i keeps of token j; passed [row, i, channel]: what goes by the scan; y).

    terms.sum(2) + passed is `ssm.y`, which the model computed step by step.
    """
    names = ("conv", "gate", "dt", "B", "C", "y")
    trace = model.run(ids, read=[at[f"layers.{layer}.ssm.{name}"] for name in names])
    x, gate, dt, enter, leave, y = (trace[f"layers.{layer}.ssm.{name}"] for name in names)
    mixer: Any = model.module.get_submodule(f"backbone.layers.{layer}.mixer")
    with torch.no_grad():
        step = softplus(dt + mixer.dt_proj.bias)
        past = step.cumsum(1)
        since = past[:, :, None] - past[:, None]  # [row, i, j, channel]
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()[..., None]
        decay = torch.exp(-torch.exp(mixer.A_log) * since.clamp(min=0)[..., None])  # [row, i, j, channel, state]
        kept = torch.einsum("bijcs,bis,bjs->bijc", decay, leave, enter) * seen
        terms = kept * (step * x)[:, None] * silu(gate)[:, :, None]
        passed = mixer.D * x * silu(gate)
    return terms, passed, y


def apart(model: "Model", ids: Tensor, layer: int) -> float:
    """How far the terms' sum is from `ssm.y` at most, as a share of the largest entry of `ssm.y`."""
    terms, passed, y = retained(model, ids, layer)
    return float((terms.sum(2) + passed - y).abs().max() / y.abs().max())
