"""Each sender's additive share of the residual stream in one run.

The stream behind any layer is the sum of the shares of all senders before it, plus the biases of the output projections,
which belong to no sender. A head's share is its part of the output projection; where the output is scaled, or normed before
it is added, the share is that part times the factor, or times the norm's own gain and scale in that run. Behind such a norm
the heads of a layer share one scale, so what a head adds depends a little on what its neighbours compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mainspring.engine.edges.anatomy import Anatomy, Layer, Runner, anatomy_of
from mainspring.engine.edges.names import Sender
from mainspring.errors import InputError, ShapeMismatch
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["Shares", "aligned", "as_shares", "head_shares", "share_sites"]


def share_sites(anatomy: Anatomy) -> tuple[Site, ...]:
    """The sites that a trace must hold for its shares to be known."""
    found = [Site("resid_pre", 0)]
    for i, layer in enumerate(anatomy.layers):
        found += [Site("attn.z", i), Site("attn.out", i), Site("mlp.add", i)]
        if layer.link.norm is not None:
            found.append(Site("attn.add", i))
    return tuple(found)


def head_shares(layer: Layer, z: Tensor, scale: Tensor | float, heads: list[int] | None = None) -> Tensor:
    """What heads add to the stream, [b, p, head, d], from their mixes of values [b, p, head, head_dim]."""
    weight = layer.share.weight()
    if heads is not None:
        z, weight = z[:, :, heads], weight[heads]
    shares = torch.einsum("bphk,hkd->bphd", z, weight)
    if isinstance(scale, Tensor):
        return (shares * scale[:, :, None]).to(z.dtype)
    return shares if scale == 1.0 else shares * scale


@dataclass(frozen=True, eq=False)
class Shares:
    """The share of every sender, [b, p, d], and the layout of the tokens (None: the same for all of them).

    `prefix` says that texts shorter than these may take the first of their tokens, as for a mean by position. `biases` are what
    the output projections add beside the heads.
    """

    values: Mapping[Sender, Tensor]
    biases: tuple[Tensor, ...]
    rows: Rows | None
    prefix: bool = False

    @staticmethod
    def sites(model: Runner) -> tuple[Site, ...]:
        """What a trace must have read for its shares to be known."""
        return share_sites(anatomy_of(model))

    @classmethod
    def of(cls, model: Runner, inputs: Any, spans: Any = None) -> "Shares":
        """Run the model once."""
        return cls.from_trace(model, model.run(inputs, read=share_sites(anatomy_of(model)), spans=spans))

    @classmethod
    def from_trace(cls, model: Runner, trace: Trace) -> "Shares":
        """From a trace that holds `Shares.sites(model)`."""
        anatomy = anatomy_of(model)
        values: dict[Sender, Tensor] = {Sender("embed"): trace[Site("resid_pre", 0)]}
        biases = []
        for i, layer in enumerate(anatomy.layers):
            out = trace[Site("attn.out", i)]
            scale = layer.link.scale(out, trace[Site("attn.add", i)] if layer.link.norm is not None else None)
            with torch.no_grad():
                heads = head_shares(layer, trace[Site("attn.z", i)], scale)
                bias = getattr(layer.share.projection, "bias", None)
                biases.append(out.new_zeros(out.shape[-1]) if bias is None else (bias.detach() * scale).to(out.dtype))
            values |= {Sender("head", i, h): heads[:, :, h] for h in range(heads.shape[2])}
            values[Sender("mlp", i)] = trace[Site("mlp.add", i)]
        return cls(values, tuple(biases), trace.rows)

    def __getitem__(self, sender: Sender) -> Tensor:
        return self.values[sender]

    def mean(self, over: tuple[str, ...] = ("batch", "pos")) -> "Shares":
        """The mean share of each sender over the batch and all tokens, or over the batch for each position.

        Padding does not count.
        """
        if tuple(over) not in (("batch",), ("batch", "pos")):
            raise InputError(f'a mean is over ("batch",) or ("batch", "pos"), not {over}')
        by_position = tuple(over) == ("batch",)
        rows = self.rows
        if rows is None:
            return self
        real = torch.arange(rows.width)[None] < torch.tensor(rows.lengths)[:, None]

        def average(value: Tensor) -> Tensor:
            first = torch.stack([row.roll(-offset, dims=0) for row, offset in zip(value, rows.offsets, strict=True)])
            weight = real.to(value)[..., None]
            dims = (0,) if by_position else (0, 1)
            return (first * weight).sum(dims, keepdim=True) / weight.sum(dims, keepdim=True).clamp(min=1)

        width = max(rows.lengths)
        means = {s: average(v) for s, v in self.values.items()}
        if not by_position:
            return Shares(means, (), None)
        return Shares({s: v[:, :width] for s, v in means.items()}, (), Rows.full(1, width), prefix=True)


def as_shares(model: Runner, other: Any, reference: Any = None, over: tuple[str, ...] = ("batch", "pos")) -> Shares | None:
    """What the brief forms of "the other value" stand for; None is zero.

    "zero"; "mean" of `reference` (a trace, shares or inputs); shares; a trace that holds the sites of shares; or inputs to run.
    """
    if isinstance(other, str) and other == "zero":
        return None
    if isinstance(other, str) and other == "mean":
        if reference is None:
            raise InputError('other="mean" needs the inputs or the trace to average over: pass reference=')
        found = as_shares(model, reference)
        assert found is not None
        return found.mean(tuple(over))
    if other is None:
        raise InputError('edges need another value: pass other= a trace, counterfactual inputs, "mean" or "zero"')
    if isinstance(other, Shares):
        return other
    return Shares.from_trace(model, other) if isinstance(other, Trace) else Shares.of(model, other)


def aligned(value: Tensor, theirs: Rows | None, mine: Rows | None, prefix: bool = False) -> Tensor:
    """A share of another run laid over the columns of this one; what pads a row is zero."""
    if theirs is None or mine is None or (theirs.lengths, theirs.offsets) == (mine.lengths, mine.offsets):
        return value
    if theirs.batch not in (1, mine.batch):
        raise ShapeMismatch(f"the other run has {theirs.batch} rows and this one {mine.batch}; give one, or one for each row")
    out = value.new_zeros((mine.batch, mine.width, *value.shape[2:]))
    for row, (length, offset) in enumerate(zip(mine.lengths, mine.offsets, strict=True)):
        other = row if theirs.batch == mine.batch else 0
        if theirs.lengths[other] != length and not (prefix and theirs.lengths[other] > length):
            raise ShapeMismatch(
                f"row {row} has {length} tokens here and {theirs.lengths[other]} in the other run; "
                "edges need texts of equal length"
            )
        start = theirs.offsets[other]
        out[row, offset : offset + length] = value[other, start : start + length]
    return out
