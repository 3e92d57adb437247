"""Which heads and MLPs a behaviour runs through: activation patching, exact, and attribution patching, its first-order estimate.

With m the metric of a row, x its clean and x' its counterfactual text, and z a part's output:

    activation_patching     m(x) - m(x with z from x')                  one run for every part, planned as a sweep
    attribution_patching    -(z(x') - z(x)) . dm/dz                     one forward and one backward pass for all parts
                            with steps, dm/dz is averaged over inputs between x' and x (integrated gradients)

Positive: the counterfactual's value lowers the metric, so the part works for the clean answer. `reduce="absolute"` averages sizes over
rows instead, for behaviours in which a part helps in one row and hinders in another.

What they do not do: see a part that another one backs up (nothing falls), or tell a part that computes from one that passes on.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.errors import InputError
from mainspring.measure.batch import Batch
from mainspring.measure.heads import Head, Heads
from mainspring.measure.metrics import Metric
from mainspring.measure.scores import Scores
from mainspring.methods import method
from mainspring.sites import at

if TYPE_CHECKING:
    from mainspring.models.model import Model
    from mainspring.trace import Trace

__all__ = ["activation_patching", "attribution_patching"]

REDUCE = ("mean", "absolute")


@method(organism="recall", control="activation norm", page="find.md#patching")
def activation_patching(
    model: "Model",
    batch: Batch,
    parts: Heads | None = None,
    *,
    metric: Metric | None = None,
    pos: Any = None,
    reduce: str = "mean",
    progress: Any = False,
) -> Scores:
    """How far the metric falls when a part alone carries its counterfactual value.

    Args:
        model: any mapped decoder.
        batch: made with counterfactuals that are aligned token by token.
        parts: heads and MLPs to patch; all by default.
        metric: the batch's own by default.
        pos: patch these positions only.
        reduce: "mean" over rows, or mean "absolute" size.
        progress: as for `model.sweep`.
    """
    other, parts = _other(batch, reduce), Heads.of(model, mlps=True) if parts is None else parts
    source = model.run(other.inputs, read=parts.sites, spans=other.spans)
    cells = [parts.choose([part]).edits("patch", source, pos=pos) for part in parts]
    measure = batch.metric() if metric is None else metric
    swept = model.sweep(batch.inputs, cells, measure, spans=batch.spans, progress=progress)
    effects = (swept.base - swept.values).double()
    return _scores(parts, dict(zip(parts, effects, strict=True)), "activation patching", reduce, measure, pos)


@method(organism="recall", control="activation norm", page="find.md#patching")
def attribution_patching(
    model: "Model",
    batch: Batch,
    parts: Heads | None = None,
    *,
    metric: Metric | None = None,
    pos: Any = None,
    reduce: str = "mean",
    steps: int = 0,
) -> Scores:
    """The same to first order, for all parts at once. Arguments as for `activation_patching`.

    `steps`: average the gradient over this many inputs on the line from the counterfactual's embeddings to the clean ones.
    """
    other, parts = _other(batch, reduce), Heads.of(model, mlps=True) if parts is None else parts
    measure = batch.metric() if metric is None else metric
    sites = parts.sites if pos is None else tuple(site(pos=pos) for site in parts.sites)
    clean = model.run(batch.inputs, read=[*sites, at.embed], spans=batch.spans)
    cut = model.run(other.inputs, read=[*sites, at.embed], spans=other.spans)
    gradients: dict[Any, Tensor] = {}
    for step in range(max(1, steps)):
        edits = []
        if steps:
            share = step / steps
            edits = [at.embed.set(cut[at.embed] + share * (clean[at.embed] - cut[at.embed]))]
        trace = model.run(batch.inputs, read=sites, edits=edits, grad_of=measure, spans=batch.spans)
        for site in sites:
            gradients[site] = gradients.get(site, 0) + trace.grad[site] / max(1, steps)
    effects: dict[Head, Tensor] = {}
    for site in sites:
        product = _real((clean[site] - cut[site]) * gradients[site], clean, pos).double()
        layer = site.layers
        assert isinstance(layer, int)
        if site.name == "mlp.out":
            effects[layer, None] = product.flatten(1).sum(1)
        else:
            by_head = product.sum(-1)
            by_head = by_head.sum(1) if by_head.ndim == 3 else by_head
            effects |= {(layer, head): by_head[:, head] for head in range(by_head.shape[1])}
    chosen = {part: effects[part] for part in parts}
    name = f"attribution patching, {steps} steps" if steps else "attribution patching"
    return _scores(parts, chosen, name, reduce, measure, pos)


def _other(batch: Batch, reduce: str) -> Batch:
    if reduce not in REDUCE:
        raise InputError(f"reduce={reduce!r}: choose one of {', '.join(REDUCE)}")
    if batch.other is None:
        raise InputError('patching needs counterfactuals: make the batch with task.batch(model, n, "name", aligned=True)')
    if not batch.aligned:
        raise InputError("the counterfactuals differ in length; make the batch with aligned=True")
    return batch.other


def _real(product: Tensor, trace: "Trace", pos: Any) -> Tensor:
    """Padding holds no part of the text, so it counts for nothing."""
    if pos is not None:
        return product
    mask = trace.rows.mask().to(product.device)
    return product * mask.reshape(*mask.shape, *[1] * (product.ndim - 2))


def _scores(parts: Heads, effects: dict[Head, Tensor], method: str, reduce: str, metric: Metric, pos: Any) -> Scores:
    values = {part: float((rows.abs() if reduce == "absolute" else rows).mean()) for part, rows in effects.items()}
    spread = torch.stack([rows.cpu() for rows in effects.values()])
    about = {"method": method, "metric": str(metric)[:80], "rows": spread.shape[1], "reduce": reduce}
    about |= {} if pos is None else {"pos": str(pos)}
    sign = "positive" if reduce == "absolute" else "absolute"
    return parts.scores(values, f"{method}: fall of the metric", sign=sign, provenance=about)
