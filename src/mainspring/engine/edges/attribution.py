"""Edge attribution patching: how much each edge matters, to first order, from one forward and one backward pass.

    score(sender -> receiver) = < other share - clean share, d metric / d (the receiver's own input stream) >

The gradient at a receiver's own input is not the gradient of the residual stream, which all that follow share. It is taken
where the receiver begins (a head's q, k or v, the MLP's input, the final norm's input) and carried back through the
projection and the norm alone, row by row, by the model's own modules; so the forward pass is never split into one stream
for each receiver. A key-value head is one receiver, and gathers the gradient of all its query heads.

With `steps` the gradients are averaged over inputs whose embeddings lie between the two (integrated gradients, at
midpoints).

Sign: positive when carrying the other value would raise the metric. What it does not do: see effects of second order, such
as a saturated softmax; `edge_effects` is exact. Reference: Syed, Rager and Conmy 2023; Hanna, Pezzelle and Belinkov 2024
for `steps`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mainspring.engine.edges.anatomy import Anatomy, Layer, Runner, anatomy_of
from mainspring.engine.edges.names import Receiver
from mainspring.engine.edges.scores import EdgeScores
from mainspring.engine.edges.senders import Shares, aligned, as_shares
from mainspring.engine.forms import Seen
from mainspring.errors import InputError
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["attribute_edges", "receiver_gradients"]


def attribute_edges(
    model: Runner,
    inputs: Any,
    other: Any,
    metric: Any,
    *,
    steps: int = 0,
    by_token: bool = False,
    reference: Any = None,
    over: tuple[str, ...] = ("batch", "pos"),
    spans: Any = None,
) -> EdgeScores:
    """Scores of every edge. `other` and `reference` as for `patch_edges`; `metric` maps a trace to one number for each row.

    `steps` 0 takes the gradient at the clean input. `by_token` also keeps each token's part of a score, which is that of the edge
    at this token alone.
    """
    anatomy = anatomy_of(model)
    if steps < 0:
        raise InputError(f"steps={steps}: give 0 for the gradient at the clean input, or how many inputs to average over")
    clean, there = Shares.of(model, inputs, spans), as_shares(model, other, reference, over)
    rows = clean.rows
    assert rows is not None
    real = rows.mask()[..., None]
    change = {}
    for sender, share in clean.values.items():
        value = torch.zeros_like(share)
        if there is not None:
            value = aligned(there[sender], there.rows, rows, there.prefix).to(share)
        change[sender] = ((value - share) * real.to(share)).float()
    embed = anatomy.graph.senders[0]
    points = [None] if steps == 0 else [(k + 0.5) / steps for k in range(steps)]
    total: dict[Receiver, Tensor] = {}
    for point in points:
        edits = None if point is None else [Site("resid_pre", 0).set(clean[embed] + point * change[embed].to(clean[embed]))]
        for receiver, gradient in receiver_gradients(model, inputs, metric, edits=edits, spans=spans):
            total[receiver] = total[receiver] + gradient if receiver in total else gradient
    stacked = torch.stack([change[s] for s in anatomy.graph.senders])
    found = []
    for receiver in anatomy.graph.receivers:
        count = len(anatomy.graph.senders_of(receiver))
        shape = "sbp" if by_token else "sb"
        found.append(torch.einsum(f"sbpd,bpd->{shape}", stacked[:count], total[receiver].float() / len(points)))
    values = torch.cat(found)
    method = "edge attribution" if steps == 0 else f"edge attribution, {steps} steps"
    if by_token:
        return EdgeScores(anatomy.graph, anatomy.graph.edges, values.sum(-1), method, values)
    return EdgeScores(anatomy.graph, anatomy.graph.edges, values, method)


def receiver_gradients(
    model: Runner, inputs: Any, metric: Any, *, edits: Any = None, spans: Any = None
) -> Iterator[tuple[Receiver, Tensor]]:
    """The gradient of the metric, summed over rows, at the stream that each receiver reads: [b, p, d], receiver by receiver."""
    anatomy = anatomy_of(model)
    wanted = [anatomy.final.site, *getattr(metric, "sites", ())]
    for i, layer in enumerate(anatomy.layers):
        wanted += [layer.pre.site, layer.entry.site, *(layer.projections[part].site for part in "qkv")]
        if not layer.parallel:
            wanted.append(Site("resid_mid", i))
    trace = model.run(inputs, read=wanted, edits=edits, grad_of=metric, spans=spans)
    for i, layer in enumerate(anatomy.layers):
        yield from _of_attention(anatomy, i, layer, trace)
        stream = trace[layer.middle.site]
        gradient = trace.grad[layer.entry.site]
        yield Receiver("mlp", i), _back(layer, stream, gradient)
    yield Receiver("logits"), trace.grad[anatomy.final.site]


def _of_attention(anatomy: Anatomy, i: int, layer: Layer, trace: Trace) -> Iterator[tuple[Receiver, Tensor]]:
    """Each head's own share of the gradient through its projection, from one call of norm and projection for each of q, k, v."""
    stream = trace[layer.pre.site]
    batch = stream.shape[0]
    for part in ("q", "k", "v"):
        place = layer.projections[part]
        gradient = trace.grad[place.site]  # [b, p, head, head_dim]
        heads = gradient.shape[2]
        with torch.enable_grad():
            apart = stream.detach().repeat(heads, 1, 1).requires_grad_()
            normed = apart if layer.attn_norm is None else layer.attn_norm(apart)
            raw = place.module(normed)
            value = place.form.read(raw, Seen(None, raw.shape[0])).unflatten(0, (heads, batch))
            # copy h of the stream answers for head h alone
            own = sum((value[h, :, :, h] * gradient[:, :, h]).sum() for h in range(heads))
            (back,) = torch.autograd.grad(own, apart)  # type: ignore[arg-type]
        for h, found in enumerate(back.unflatten(0, (heads, batch))):
            yield Receiver(part, i, h), found


def _back(layer: Layer, stream: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at the MLP's input, carried back through its norm."""
    gradient = gradient.reshape(stream.shape)
    if layer.mlp_norm is None:
        return gradient
    with torch.enable_grad():
        leaf = stream.detach().requires_grad_()
        (back,) = torch.autograd.grad((layer.mlp_norm(leaf) * gradient).sum(), leaf)
    return back
