"""Where the tokens of each row stand in a padded batch: positions count real tokens, columns count the padded tensor.

Position 0 is the first real token of its row and -1 the last, whatever the padding. In a generation, `lengths` are those of the
prompt: negative positions count back from the prompt's end, and step k is the position whose output predicts generated token k.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from mainspring.errors import PositionError, nearest
from mainspring.selectors import Index, PerRow, Slice, Span

__all__ = ["Rows", "Spans"]

Spans = Mapping[str, tuple[tuple[int, int], ...]]
"""Token stretches by name: for each row the first position and the one after the last."""


@dataclass(frozen=True)
class Rows:
    """The layout of a batch: per row the number of real tokens and of padding columns before them."""

    lengths: tuple[int, ...]
    offsets: tuple[int, ...]
    width: int
    spans: Spans = field(default_factory=dict)

    def __post_init__(self) -> None:
        uniform = len(set(self.offsets)) <= 1 and len(set(self.lengths)) <= 1
        object.__setattr__(self, "uniform", uniform)

    uniform: bool = field(init=False, default=True, compare=False, repr=False)

    @classmethod
    def full(cls, batch: int, width: int, spans: Spans | None = None) -> "Rows":
        """A batch without padding."""
        return cls((width,) * batch, (0,) * batch, width, spans or {})

    @classmethod
    def of_mask(cls, mask: Shaped[Tensor, "batch width"], spans: Spans | None = None) -> "Rows":
        """From an attention mask [batch, width] that is nonzero on real tokens, which stand together."""
        real = mask != 0
        lengths = real.sum(dim=1)
        if bool((lengths == 0).any()):
            raise PositionError(f"row {int((lengths == 0).nonzero()[0])} of the batch has no real token")
        offsets = real.int().argmax(dim=1)
        ends = real.shape[1] - real.int().flip(1).argmax(dim=1)
        if bool((ends - offsets != lengths).any()):
            # holes inside a row: columns are then addressed as they stand, from the first real token to the last
            lengths = ends - offsets
        return cls(tuple(lengths.tolist()), tuple(offsets.tolist()), real.shape[1], spans or {})

    @cached_property
    def form(self) -> "tuple[Any, ...] | None":
        """What selections depend on, to remember them by; None with spans, which differ from run to run."""
        return None if self.spans else (self.lengths, self.offsets, self.width)

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def padded(self) -> bool:
        return any(length != self.width for length in self.lengths)

    def take(self, rows: list[int]) -> "Rows":
        """The layout of some of the rows."""
        spans = {name: tuple(places[r] for r in rows) for name, places in self.spans.items()}
        return Rows(tuple(self.lengths[r] for r in rows), tuple(self.offsets[r] for r in rows), self.width, spans)

    def mask(self) -> Bool[Tensor, "batch width"]:
        """True on real tokens."""
        columns = torch.arange(self.width)
        start = torch.tensor(self.offsets)[:, None]
        return (columns >= start) & (columns < start + torch.tensor(self.lengths)[:, None])

    def stretch(self, name: str, row: int) -> tuple[int, int]:
        """The span `name` of a row, as positions."""
        if name not in self.spans:
            known = ", ".join(sorted(self.spans)) or "none"
            raise PositionError(
                f"the inputs have no span {name!r}{nearest(name, self.spans)}; spans given: {known}. Pass spans={{{name!r}: ...}}"
            )
        return self.spans[name][row]

    def positions(self, row: int, index: Index, start: int, stop: int, *, step: bool = False, final: bool = True) -> list[int]:
        """The columns in [start, stop) that `index` picks in a row, in order.

        `step` counts from the last prompt token. `final` says that the window ends the sequence, so that an index beyond it is
        an error; otherwise (a generation that goes on) it simply does not fall in this window.
        """
        offset, length = self.offsets[row], self.lengths[row]
        zero = offset + length - 1 if step else offset
        if isinstance(index, PerRow):
            if len(index.indices) != self.batch:
                raise PositionError(f"{index} has {len(index.indices)} entries for a batch of {self.batch} rows")
            index = index.indices[row]
        if isinstance(index, Span):
            first, last = self.stretch(index.name, row)
            if index.part is None:
                chosen: list[int] = list(range(first, last))
            elif -(last - first) <= index.part < last - first:
                chosen = [range(first, last)[index.part]]
            else:
                raise PositionError(f"{index} asks for token {index.part} of a span of {last - first} tokens in row {row}")
            return [offset + p for p in chosen if start <= offset + p < stop]
        if isinstance(index, Slice):
            if step and any(x is not None and x < 0 for x in (index.start, index.stop)):
                raise PositionError(f"step={index}: steps count generated tokens from 0")
            # in a generation an open end reaches into tokens that come later; a negative one counts from the prompt's end
            end = length if final else max(length, stop - zero)
            if any(x is not None and x < 0 for x in (index.start, index.stop)):
                bounds = slice(index.start, index.stop, index.step).indices(length)
                bounds = (bounds[0], end if index.stop is None and bounds[2] > 0 else bounds[1], bounds[2])
            else:
                bounds = slice(index.start, index.stop, index.step).indices(end)
            return [zero + p for p in range(*bounds) if start <= zero + p < stop]
        many = (index,) if isinstance(index, int) else index
        for p in many:
            if step and p < 0:
                raise PositionError(f"step={p}: steps count generated tokens from 0")
            if p < -length or (final and not step and p >= length):
                raise PositionError(
                    f"position {p} is beyond the text of row {row}, which has {length} tokens (0 to {length - 1})"
                )
        return [c for c in ((zero + p if p >= 0 or step else offset + length + p) for p in many) if start <= c < stop]
