"""How the tensor that a module passes around becomes the tensor of a site, and back.

A form reads `raw -> value` and writes `raw, old, new -> raw`. Forms are differentiable, and a write of an unchanged value
changes no bit.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "Flattened",
    "Form",
    "Half",
    "HeadShare",
    "Heads",
    "HeadsFirst",
    "InnerHeads",
    "Masked",
    "Packed",
    "Scaled",
    "Seen",
    "Stretch",
    "Unbatched",
]


class Seen(NamedTuple):
    """What a form may need beside the tensor: the module's own input, and the number of rows of the batch."""

    inputs: Tensor | None = None
    batch: int | None = None


class Form:
    """The identity: the module's tensor is the site's."""

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        """The site's value."""
        return raw

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        """The module's tensor with the site's value `old` replaced by `new`."""
        return new


@dataclass(frozen=True)
class Heads(Form):
    """[b, p, heads * dim] as [b, p, heads, dim]."""

    heads: int

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw.unflatten(-1, (self.heads, -1))

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return new.flatten(-2)


@dataclass(frozen=True)
class HeadsFirst(Form):
    """[b, heads, p, dim], as attention functions take it, as [b, p, heads, dim]."""

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw.transpose(1, 2)

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return new.transpose(1, 2)


@dataclass(frozen=True)
class InnerHeads(Form):
    """[b, heads, p, dim] or [b * heads, p, dim], as modules that compute attention themselves keep it, as [b, p, heads, dim].

    `transposed` says that the last two axes are exchanged, as keys are for the product with queries. Where the module holds a
    copy of a key-value head for each of its query heads, the copies are one: the first is read and all are written.
    """

    heads: int
    transposed: bool = False

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        rows = raw.transpose(-1, -2) if self.transposed else raw
        rows = rows.unflatten(0, (-1, self.heads)) if raw.ndim == 3 else rows
        return rows[:, :: rows.shape[1] // self.heads].transpose(1, 2)

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        copies = 1 if raw.ndim == 3 else raw.shape[1] // self.heads
        rows = new.transpose(1, 2)
        rows = rows.repeat_interleave(copies, dim=1) if copies > 1 else rows
        rows = rows.flatten(0, 1) if raw.ndim == 3 else rows
        return rows.transpose(-1, -2) if self.transposed else rows


@dataclass(frozen=True, eq=False)
class Masked(Form):
    """Scores with -inf where the module's own mask is the lowest number of its dtype."""

    module: nn.Module

    def _floor(self) -> float:
        return torch.finfo(next(self.module.parameters()).dtype).min / 2

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw.masked_fill(raw <= self._floor(), float("-inf"))

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        # where both forbid, the module keeps its own number, unless an edit leaves a query nothing else to look at
        own, closed = raw <= self._floor(), new == float("-inf")
        emptied = closed.all(dim=-1, keepdim=True) & ~own.all(dim=-1, keepdim=True)
        return torch.where(closed & own & ~emptied, raw.detach(), new)


@dataclass(frozen=True)
class Packed(Form):
    """One of q, k, v inside a fused projection.

    `layout` says how the last axis is packed: "thirds" (all q, then all k, then all v), "per_head" (q, k, v of head 0, of
    head 1, ...) or "per_group" (the queries of a key-value head, its key, its value; then the next group).
    """

    part: str
    layout: str
    heads: int
    kv_heads: int
    head_dim: int

    def _place(self, raw: Tensor) -> tuple[Tensor, int, int, tuple[int, ...]]:
        """A view of raw, the axis to narrow, where and how long, and the shape of the part's heads."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.layout == "thirds":
            start, length = {"q": (0, q), "k": (q, kv), "v": (q + kv, kv)}[self.part]
            return raw.unsqueeze(-1), start, length, (self.heads if self.part == "q" else self.kv_heads, self.head_dim)
        group = self.heads // self.kv_heads
        grouped = raw.unflatten(-1, (self.kv_heads, group + 2, self.head_dim))
        start, length = {"q": (0, group), "k": (group, 1), "v": (group + 1, 1)}[self.part]
        return grouped, start, length, (self.heads if self.part == "q" else self.kv_heads, self.head_dim)

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        view, start, length, shape = self._place(raw)
        return view.narrow(-2, start, length).reshape(*raw.shape[:-1], *shape)

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        view, start, length, _ = self._place(raw)
        part = new.reshape(view.narrow(-2, start, length).shape)
        rest = view.shape[-2] - start - length
        pieces = [view.narrow(-2, 0, start), part, view.narrow(-2, start + length, rest)]
        return torch.cat(pieces, dim=-2).reshape(raw.shape)


@dataclass(frozen=True)
class Scaled(Form):
    """The module's output times a constant, as it enters the residual stream."""

    factor: float

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw * self.factor

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return raw.detach() + (new - old.detach()) / self.factor if old.requires_grad else raw + (new - old) / self.factor


@dataclass(frozen=True)
class Unbatched(Form):
    """[p, d] without a batch axis, as [1, p, d]; `inner` is the form that it has then."""

    inner: Form = field(default_factory=Form)

    def _batched(self, seen: Seen) -> Seen:
        return Seen(None if seen.inputs is None else seen.inputs.unsqueeze(0), 1)

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return self.inner.read(raw.unsqueeze(0), self._batched(seen))

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return self.inner.write(raw.unsqueeze(0), old, new, self._batched(seen)).squeeze(0)


@dataclass(frozen=True)
class Flattened(Form):
    """[b * p, d], as some modules take their tokens, as [b, p, d]."""

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        if raw.ndim != 2:
            return raw
        assert seen.batch is not None
        return raw.unflatten(0, (seen.batch, -1))

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return new.reshape(raw.shape)


@dataclass(frozen=True)
class Half(Form):
    """One of several equal parts of the last axis, as fused gate-and-up projections pack them."""

    index: int
    parts: int = 2

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw.chunk(self.parts, dim=-1)[self.index]

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        pieces = list(raw.chunk(self.parts, dim=-1))
        pieces[self.index] = new
        return torch.cat(pieces, dim=-1)


@dataclass(frozen=True)
class Stretch(Form):
    """Entries start to stop of the last axis, as fused projections of state-space models pack them."""

    start: int
    stop: int

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        return raw[..., self.start : self.stop]

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        return torch.cat([raw[..., : self.start], new, raw[..., self.stop :]], dim=-1)


@dataclass(frozen=True, eq=False)
class HeadShare(Form):
    """The output projection's output as a sum over heads: [b, p, head, d], without the bias.

    Read at the projection's output from its input; an edit adds the difference to the output.
    """

    projection: nn.Module
    heads: int

    def weight(self) -> Float[Tensor, "head head_dim d"]:
        """Each head's part of the projection. GPT-2's Conv1D keeps its weight input-first."""
        weight = self.projection.weight
        assert isinstance(weight, Tensor)
        inward = weight if type(self.projection).__name__ == "Conv1D" else weight.T
        return inward.unflatten(0, (self.heads, -1))

    def read(self, raw: Tensor, seen: Seen) -> Tensor:
        assert seen.inputs is not None
        return torch.einsum("bphk,hkd->bphd", seen.inputs.unflatten(-1, (self.heads, -1)), self.weight())

    def write(self, raw: Tensor, old: Tensor, new: Tensor, seen: Seen) -> Tensor:
        base = raw.detach() if old.requires_grad else raw
        return base + (new - old.detach() if old.requires_grad else new - old).sum(dim=-2)
