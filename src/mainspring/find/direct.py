"""Direct logit attribution: what every part writes straight into the logits, the final norm held at the size it had.

With u = dm/d(final_norm), s the norm's scale of the clean run and c a part's own addition to the residual stream:

    share(c) = u . frozen_norm(c)         frozen_norm(c) = g * (c - mean(c)) * s  for layer norm,  g * c * s  for RMS norm

The shares of the embedding, of every head, every attention bias and MLP, and of the norm's bias add up to u . final_norm, which is the
metric itself where it is linear in the logits and these in the norm (a capped head is taken at its slope).

What it does not do: see what a part does through later parts; that is patching's.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mainspring.measure.batch import Batch
from mainspring.measure.heads import Head, Heads
from mainspring.measure.metrics import Metric
from mainspring.measure.scores import Scores
from mainspring.methods import method
from mainspring.sites import at

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["direct_logit_attribution"]


@method(organism="select-add", control="activation norm", page="find.md#direct-logit-attribution")
def direct_logit_attribution(model: "Model", batch: Batch, *, metric: Metric | None = None, pos: int = -1) -> Scores:
    """[layer, head or mlp] the share of each part in the metric, averaged over rows; positive parts write for the answer.

    The controls say what is left: "embedding", "biases" (attention biases and the norm's), and "total", the metric that all shares add
    up to.

    Args:
        model: any mapped decoder.
        batch: rows with answers.
        metric: linear in the logits; the batch's own by default.
        pos: the position whose logits the metric looks at.
    """
    measure = batch.metric() if metric is None else metric
    parts = Heads.of(model, mlps=True)
    last = at.layers[model.n_layers - 1].resid_post(pos=pos)
    layers = sorted({layer for layer, head in parts if head is not None})
    mlps = sorted({layer for layer, head in parts if head is None})
    heads = [at.layers[i].attn.head_out(pos=pos) for i in layers]
    outs, adds = ([getattr(at.layers[i].attn, name)(pos=pos) for i in layers] for name in ("out", "add"))
    mlp_adds = [at.layers[i].mlp.add(pos=pos) for i in mlps]
    embed = at.layers[0].resid_pre(pos=pos)
    final = at.final_norm(pos=pos)
    trace = model.run(batch.inputs, read=[*heads, *outs, *adds, *mlp_adds, embed], spans=batch.spans, until="end")
    after = model.run(batch.inputs, read=[last, final], grad_of=measure, spans=batch.spans)
    norm = model.atlas.place(final.bare).module
    with torch.no_grad():
        shift = norm(torch.zeros_like(after[last][:1])).double()
        pull = _frozen(norm, shift, after[last], after[final], after.grad[final], after.grad[last])
    values: dict[Head, float] = {}
    biases = torch.zeros(len(batch), dtype=torch.double)
    for layer, site, out, add in zip(layers, heads, outs, adds, strict=True):
        summed, added = trace[out].double(), trace[add].double()
        # a norm behind attention, or a multiplier, scales every entry of the sum, and so of each head's share in it
        scale = torch.where(summed == 0, 0.0, added / summed)
        share = torch.einsum("bhd,bd->bh", trace[site].double(), scale * pull)
        values |= {(layer, head): float(x) for head, x in enumerate(share.mean(0))}
        biases += ((added * pull).sum(-1) - share.sum(-1)).cpu()
    for layer, add in zip(mlps, mlp_adds, strict=True):
        values[layer, None] = float((trace[add].double() * pull).sum(-1).mean())
    embedding = (trace[embed].double() * pull).sum(-1).mean()
    total = (after[final].double() * after.grad[final].double()).sum(-1).cpu()
    biases += (shift * after.grad[final].double()).sum(-1).cpu()
    controls: dict[str, Tensor | float] = {
        "embedding": float(embedding),
        "biases": float(biases.mean()),
        "total": float(total.mean()),
    }
    about = {"method": "direct logit attribution", "metric": str(measure)[:80], "rows": len(batch), "pos": pos}
    kept = parts.choose(values)
    return kept.scores(values, "direct share of the metric", sign="absolute", controls=controls, provenance=about)


def _frozen(norm: nn.Module, shift: Tensor, x: Tensor, normed: Tensor, upward: Tensor, through: Tensor) -> Tensor:
    """[row, d] A'u, where norm(x) = A x + b with the norm's scale held and b the `shift`: a part's share is its inner product with it.

    The whole gradient `through` the norm lacks what the scale holds, which lies along the (centred) input itself: A'u = J'u + a x.
    As A x is norm(x) - b, and norms do not tell whether their input is long or short, this fixes a. So the norm's own module decides
    what it is, and nothing is assumed of its weights.
    """
    moved = norm((x + x.abs().mean()).to(x.dtype)).double()
    centred = torch.allclose(moved, normed.double(), rtol=1e-3, atol=1e-4 * float(normed.abs().max()))
    x, upward, through = x.double(), upward.double(), through.double()
    along = x - x.mean(-1, keepdim=True) if centred else x
    held = (upward * (normed.double() - shift)).sum(-1) - (through * x).sum(-1)
    return through + (held / (along * x).sum(-1))[:, None] * along
