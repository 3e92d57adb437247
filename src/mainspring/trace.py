"""What a run gives back: values by site, gradients, the output, and how often each edit fired.

A trace holds snapshots, never aliases of the model's tensors. It answers for every site that was read, for narrower views of it,
and for wildcards over layers (stacked on a leading axis). Where a value was kept, so are its coordinates in any basis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edit
from mainspring.errors import NotRecorded, PositionError, nearest
from mainspring.rows import Rows
from mainspring.sites import Site, parse_site
from mainspring.windows import compile_window

__all__ = ["Trace", "Values"]


@dataclass(frozen=True)
class Values:
    """Tensors by site, with the layout of their tokens; the mapping behind `trace[...]` and `trace.grad[...]`.

    `grown` says that generated tokens follow those that `rows` lays out.
    """

    values: Mapping[Site, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    n_layers: Mapping[str, int] = field(default_factory=dict)
    what: str = "value"
    grown: bool = False

    def __getitem__(self, site: Site | str) -> Tensor:
        site = parse_site(site) if isinstance(site, str) else site
        if site in self.values:
            return self.values[site]
        if site.is_single:
            return self._one(site.expand(self._depth(site))[0])
        found = [self._one(s) for s in self._concrete(site)]
        if len({f.shape for f in found}) > 1:
            raise NotRecorded(f"{site} has different shapes in different layers; ask for one layer at a time")
        return torch.stack(found)

    def __contains__(self, site: Site | str) -> bool:
        try:
            self[site]
        except (NotRecorded, PositionError):
            return False
        return True

    def __iter__(self) -> Iterator[Site]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def items(self) -> Iterator[tuple[Site, Tensor]]:
        return iter(self.values.items())

    def _depth(self, site: Site) -> int:
        return self.n_layers.get(site.stack, 0) if site.layers is not None else 1

    def _concrete(self, site: Site) -> list[Site]:
        """The layers that a wildcard names, less those that this architecture does not offer and the run left out."""
        bare = site.bare
        held = {s.layers for s in self.values if (s.name, s.stack) == (bare.name, bare.stack)}
        found = [s for s in site.expand(self._depth(site)) if s.layers in held]
        if not found:
            raise self._missing(site)
        return found

    def _one(self, site: Site) -> Tensor:
        if site in self.values:
            return self.values[site]
        whole = self.values.get(site.whole)
        if whole is None and site.basis is not None:
            if (plain := self.values.get(replace(site, basis=None))) is not None:
                return self._through(site, plain)
            plain = self.values.get(site.bare)
            whole = None if plain is None else self._through(site, plain)
            if whole is not None and not site.select:
                return whole
        if whole is None:
            raise self._missing(site)
        axes = site.axes
        if axes is None or whole.ndim != len(axes):
            raise self._missing(site)
        layouts = self._layouts(site, axes)
        window = compile_window(site.select, axes, tuple(whole.shape), layouts, final=not self.grown, name=str(site))
        if self.grown and (window.empty or window.hit is not None):
            raise PositionError(f"{site} picks positions that not every row of this generation reached")
        if window.ragged or window.empty:
            raise PositionError(f"{site} picks a different number of tokens in different rows; ask for one row at a time (row=)")
        return window.get(whole)

    def _through(self, site: Site, plain: Tensor) -> Tensor:
        """The coordinates of what was kept in full; of a gradient, that with respect to the coordinates."""
        assert site.basis is not None
        return site.basis.pull(plain) if self.what == "gradient" else site.basis.encode(plain)

    def _layouts(self, site: Site, axes: tuple[str, ...]) -> dict[str, Rows]:
        return {axis: self.rows[stack] for axis, stack in site.token_stacks.items() if stack in self.rows}

    def _missing(self, site: Site) -> NotRecorded:
        known = [str(s) for s in self.values]
        shown = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
        return NotRecorded(
            f"this run kept no {self.what} of {site}; add it to read=. It kept: {shown or 'nothing'}{nearest(str(site), known)}"
        )


NOTHING, NO_GRADIENT = Values(), Values(what="gradient")


@dataclass(frozen=True, eq=False)
class Trace:
    """The result of `model.run` or `model.generate`.

    `trace[site]` is the value that flowed on at a site (`original` the one before the edits, where asked for); `grad[site]` the
    gradient there of the scalar that was asked for; `fired` counts, for each edit, the places and steps where it acted.
    """

    read: Values = NOTHING
    grad: Values = NO_GRADIENT
    fired: Mapping[Edit, int] = field(default_factory=dict)
    output: Any = None
    tokens: Tensor | None = None
    stopped_after: str | None = None
    text: tuple[str, ...] | None = None
    metric: Tensor | None = None

    def __getitem__(self, site: Site | str) -> Tensor:
        return self._values(site)[site]

    def __contains__(self, site: Site | str) -> bool:
        return site in self._values(site)

    def _values(self, site: Site | str) -> Values:
        """Where a site's value is: among what was read, or in the output, which a run to the end has anyway."""
        site = parse_site(site) if isinstance(site, str) else site
        if site.name != "logits" or site.stack or self.read.grown or site in self.read.values or site.bare in self.read.values:
            return self.read
        found = getattr(self.output, "logits", None)
        return self.read if found is None else Values({site.bare: found}, self.read.rows, self.read.n_layers)

    @property
    def rows(self) -> Rows:
        """The layout of the batch: lengths, padding and spans of every row."""
        found = self.read.rows.get("")
        if found is None:
            raise NotRecorded("this run had no text, so it has no token rows")
        return found

    @property
    def logits(self) -> Tensor:
        """The model's logits, after any scaling and capping of its own. Shape [batch, pos, vocab] for a language model."""
        for site in self.read:
            if site.name == "logits" and not site.select:
                return self.read[site]
        found = getattr(self.output, "logits", None)
        if found is None and isinstance(self.output, Mapping):
            found = self.output.get("logits")
        if found is not None:
            return found
        if self.stopped_after is not None:
            raise NotRecorded(
                f"the run stopped after {self.stopped_after}, the last place asked for, so there are no logits; "
                'add at.logits to read=, or pass until="end"'
            )
        raise NotRecorded("this model's output has no logits")

    def row(self, index: int) -> "Trace":
        """One row of the batch as a trace of its own, without padding."""
        rows = self.rows
        if not -rows.batch <= index < rows.batch:
            raise PositionError(f"row {index} is out of range; the batch has {rows.batch} rows")
        index %= rows.batch

        def cut(values: Values) -> Values:
            layouts = {stack: r.take([index]) for stack, r in values.rows.items() if r.batch == rows.batch}
            # images are no rows of text: what a vision tower gave belongs to no single row
            bare = {s: _unpad(s, v, index, values) for s, v in values.values.items() if not _of_images(s)}
            trimmed = {k: Rows.full(1, r.lengths[0], r.spans) for k, r in layouts.items()}
            return Values(bare, trimmed, values.n_layers, values.what, values.grown)

        tokens = None
        if self.tokens is not None:
            start = rows.offsets[index]
            tokens = self.tokens[index : index + 1, start:]
            if self.tokens.shape[1] == rows.width:
                tokens = tokens[:, : rows.lengths[index]]
        output = None
        if (logits := getattr(self.output, "logits", None)) is not None and logits.ndim == 3:
            start = rows.offsets[index]
            output = {"logits": logits[index : index + 1, start : start + rows.lengths[index]]}
        text = None if self.text is None else self.text[index : index + 1]
        return Trace(cut(self.read), cut(self.grad), self.fired, output, tokens, self.stopped_after, text)

    def to(self, *args: Any, **kwargs: Any) -> "Trace":
        """The same trace with its tensors moved or cast, as `Tensor.to` does."""

        def move(values: Values) -> Values:
            return replace(values, values={s: v.to(*args, **kwargs) for s, v in values.items()})

        output = self.output
        if (logits := getattr(output, "logits", None)) is not None:
            output = {"logits": logits.to(*args, **kwargs)}
        return Trace(
            move(self.read), move(self.grad), self.fired, output, self.tokens, self.stopped_after, self.text, self.metric
        )

    def save(self, path: Any) -> None:
        """Write values, gradients, logits and layout to one safetensors file."""
        from mainspring.storage import save_trace

        save_trace(self, path)

    @classmethod
    def load(cls, path: Any) -> "Trace":
        """Read what `save` wrote."""
        from mainspring.storage import load_trace

        return load_trace(path)

    def __repr__(self) -> str:
        parts = [f"{len(self.read)} values" if len(self.read) != 1 else "1 value"]
        if len(self.grad):
            parts.append(f"{len(self.grad)} gradients")
        if self.fired:
            parts.append(f"{len(self.fired)} edits fired {sum(self.fired.values())} times")
        if self.stopped_after:
            parts.append(f"stopped after {self.stopped_after}")
        return f"Trace({', '.join(parts)})"


def _of_images(site: Site) -> bool:
    return site.stack == "vision" or "image" in (site.axes or ())


def _unpad(site: Site, value: Tensor, row: int, values: Values) -> Tensor:
    """One row of a value, with the padding of its token axes cut off."""
    if dict(site.select).get("row") is not None or site.axes is None:
        return value
    value = value[row : row + 1]
    layouts = values._layouts(site, site.axes)
    if value.ndim != len(site.axes):
        return value
    for axis, name in enumerate(site.axes):
        layout = layouts.get(name)
        if layout is None:
            continue
        if value.shape[axis] == layout.width:
            value = value.narrow(axis, layout.offsets[row], layout.lengths[row])
        elif values.grown and value.shape[axis] > layout.width:
            value = value.narrow(axis, layout.offsets[row], value.shape[axis] - layout.offsets[row])
    return value
