"""`sweep`: run many edit sets on the same inputs, and measure each.

Cells that only change one input causally are run by forking (`forked`), after a probe on this very model has shown that forked
numbers equal plain ones; all others, and all cells of a model that fails the probe, run plainly, and the plan says why. Results are
kept as they come: an interrupted sweep with a `resume` file goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edits, as_edits
from mainspring.engine.plan import Atlas, make_plan
from mainspring.engine.run import execute
from mainspring.engine.sweeps.cells import Cell, locate, of_row
from mainspring.engine.sweeps.forked import base_run, run_group
from mainspring.engine.sweeps.looks import Looks, head_of
from mainspring.engine.sweeps.planner import EVERYTHING, Group, Savings, SweepPlan, make_groups, pass_cost
from mainspring.errors import InputError, MainspringError, NotPortable
from mainspring.rows import Rows
from mainspring.sites import Site, at
from mainspring.trace import Trace

__all__ = ["Sweep", "sweep"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """`values[cell, input]` (and further axes when the metric is a site), with the unedited `base[input]` and the plan."""

    values: Tensor
    base: Tensor
    plan: SweepPlan
    labels: tuple[tuple[str, tuple[Any, ...]], ...] = field(default=())

    @property
    def grid(self) -> Tensor:
        """The values with one axis for each axis of the grid that made the edit sets, then the inputs."""
        shape = [len(values) for _, values in self.labels] or [len(self.values)]
        return self.values.reshape(*shape, *self.values.shape[1:])


def sweep(
    atlas: Atlas,
    tokens: Sequence[Tensor],
    spans: Sequence[Mapping[str, tuple[int, int]]],
    edit_sets: Iterable[Any],
    metric: Any,
    run_plain: Callable[[Edits, Any], Trace],
    *,
    names: frozenset[str],
    labels: tuple[tuple[str, tuple[Any, ...]], ...] = (),
    memory: float = 1.0,
    resume: str | Path | None = None,
    plain: str = "",
    savings: Savings = EVERYTHING,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Run every edit set on every row of tokens.

    `run_plain(edits, sites)` is one plain run of all inputs. `memory` is what a forward pass may hold, in GiB. `plain` gives a
    reason to fork nothing. `savings` says what forked cells leave out; `Model.sweep` always takes all of them.
    """
    planned = _Sweep(atlas, tokens, spans, [as_edits(e) for e in edit_sets], metric, run_plain, names, memory, plain, savings)
    return planned.execute(labels, None if resume is None else Path(resume), progress)


class _Sweep:
    def __init__(
        self,
        atlas: Atlas,
        tokens: Sequence[Tensor],
        spans: Sequence[Mapping[str, tuple[int, int]]],
        edit_sets: list[Edits],
        metric: Any,
        run_plain: Callable[[Edits, Any], Trace],
        names: frozenset[str],
        memory: float,
        plain: str,
        savings: Savings,
    ) -> None:
        if not edit_sets:
            raise InputError("a sweep needs at least one edit set")
        for i, edits in enumerate(edit_sets):
            if not edits:
                raise InputError(f"edit set {i} of the sweep is empty; the unedited run is measured as `base` anyway")
        self.atlas, self.tokens, self.spans, self.edit_sets = atlas, tokens, spans, edit_sets
        self.names, self.memory, self.run_plain, self.savings = names, memory, run_plain, savings
        self.metric, self.sites, self.depth = metric, _sites_of(metric), atlas.depth("")
        self.reason = plain or unforkable(atlas, names, tokens[0])
        if not self.reason and len(tokens) > 1 and not isinstance(metric, Site) and not hasattr(metric, "for_row"):
            self.reason = "the metric is a bare function, which may treat the rows of a batch differently"
        self.groups: list[Group] = []
        self.plain: list[tuple[int, Cell]] = []
        planned = naive = 0
        seen = frozenset(s for site in self.sites or () for s in site.bare.expand(self.depth))
        for row in range(len(tokens)):
            layout, length = self._layout(row), tokens[row].shape[0]
            if self.reason:
                cells = [Cell(i, edits, plain=self.reason) for i, edits in enumerate(edit_sets)]
            else:
                cells = [locate(atlas, i, of_row(e, row, len(tokens)), {"": layout}, seen) for i, e in enumerate(edit_sets)]
            ready = [c if savings.layers else replace(c, fork=0) for c in cells if not c.plain]
            self.plain += [(row, c) for c in cells if c.plain]
            looks = self._looks(row)
            limit = self._max_rows(row, looks) if ready else 1
            per_pass = pass_cost(self.depth, self._width, self._n_logits(looks))
            groups, cost = make_groups(
                ready, row, length, self.depth, share_prefix=savings.tokens, max_rows=limit, per_pass=per_pass
            )
            self.groups += groups
            planned += cost + sum(length * self.depth for c in cells if c.plain) + (length * self.depth if ready else 0)
            naive += len(edit_sets) * length * self.depth
        reasons: dict[str, int] = {}
        for _, cell in self.plain:
            reasons[cell.plain] = reasons.get(cell.plain, 0) + 1
        forwards = len(self.groups) + len({g.row for g in self.groups}) + len({c.index for _, c in self.plain})
        self.plan = SweepPlan(len(edit_sets), len(tokens), naive, planned, forwards, tuple(reasons.items()))

    def _layout(self, row: int) -> Rows:
        spans = {name: (place,) for name, place in self.spans[row].items()}
        return Rows.full(1, self.tokens[row].shape[0], spans)

    @property
    def _width(self) -> int:
        return self.atlas.place(Site("resid_pre", 0)).sizes.get("dim", 1024)

    @property
    def _vocabulary(self) -> int:
        """How many logits a token has; 0 where the model has none."""
        try:
            return self.atlas.place(Site("logits")).sizes.get("vocab", 0)
        except MainspringError:
            return 0

    def _looks(self, row: int) -> Looks:
        """What the metric looks at on one input, and so where the head must run."""
        sites = None if self.sites is None else tuple(site.of_row(row) for site in self.sites)
        looks = Looks.of(sites, self._layout(row), self.savings.head and "logits_to_keep" in self.names)
        return replace(looks, tokens=self._looked_at(row)) if looks.logits and self.savings.head else looks

    def _looked_at(self, row: int) -> Tensor | None:
        """The tokens whose logits decide the metric of one input; None when the whole vocabulary must be computed."""
        if not hasattr(self.metric, "token_ids") or not gives_single_tokens(self.atlas):
            return None
        found = self.metric.for_row(row, len(self.tokens)).token_ids()
        return None if found is None or len(found) == 0 or int(found[-1]) >= self._vocabulary else found

    def _n_logits(self, looks: Looks) -> int:
        """How many logits the unembedding gives for a column."""
        return self._vocabulary if looks.tokens is None else len(looks.tokens)

    def _max_rows(self, row: int, looks: Looks) -> int:
        """How many cells of one input a forward pass may hold."""
        length = self.tokens[row].shape[0]
        numbers = length * self._width * 20  # a layer holds some twenty vectors of the model's width for each token
        if looks.logits:  # held, and copied once
            numbers += 2 * self._n_logits(looks) * (length if looks.columns is None else len(looks.columns))
        return max(1, int(self.memory * 2**30 / (numbers * self.atlas.dtype.itemsize)))

    def execute(self, labels: Any, resume: Path | None, progress: Callable[[int, int], None] | None) -> Sweep:
        total, done = len(self.edit_sets) * len(self.tokens), 0
        store = _Store(resume, self._fingerprint() if resume else "", (len(self.edit_sets), len(self.tokens)))
        base: Tensor | None = None

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        advance(int(store.done.sum()))
        if not all(any(g.row == row for g in self.groups) for row in range(len(self.tokens))):
            base = self._measured_batch(self.run_plain(Edits(), self.sites))
        unedited = []
        for row in sorted({g.row for g in self.groups}):
            found, pieces = self._forked(row, store)
            unedited.append(found)
            for indices, values in pieces:
                store.put(indices, row, values)
                advance(len(indices))
        base = torch.cat(unedited) if base is None else base
        for index, values in self._plainly(store):
            for row in range(len(self.tokens)):
                fresh = not store.has(index, row)
                store.put([index], row, values[row : row + 1])
                advance(int(fresh))
        assert store.values is not None
        return Sweep(store.values, base.detach().cpu(), self.plan, labels)

    def _forked(self, row: int, store: "_Store") -> tuple[Tensor, Iterator[tuple[list[int], Tensor]]]:
        """The unedited measurement of one input, and its groups as they are run."""
        layout, looks = self._layout(row), self._looks(row)
        base = base_run(self.atlas, {"input_ids": self.tokens[row][None].to(self.atlas.device)}, {"": layout}, looks)

        def pieces() -> Iterator[tuple[list[int], Tensor]]:
            for group in self.groups:
                cells = [c for c in group.cells if group.row == row and not store.has(c.index, row)]
                if cells:
                    trace = run_group(self.atlas, base, cells, group.start, looks)
                    yield [c.index for c in cells], self._measured_cells(trace, row, len(cells), looks)

        return self._measured_cells(base.trace(looks, self.depth), row, 1, looks), pieces()

    def _fingerprint(self) -> str:
        from mainspring.storage import document_of

        digest = hashlib.sha256()
        for edits in self.edit_sets:
            tensors: dict[str, Tensor] = {}
            document, _ = document_of(edits, tensors=tensors, function=partial(_written, tensors=tensors))
            digest.update(json.dumps(document, sort_keys=True).encode())
            for name in sorted(tensors):
                digest.update(tensors[name].to(torch.float32).numpy().tobytes())
        for tokens in self.tokens:
            digest.update(tokens.cpu().numpy().tobytes())
        for name, weight in self.atlas.module.named_parameters():  # a change in any layer makes it another model
            held = weight.detach().double()
            digest.update(f"{name} {float(held.sum())!r} {float(held.square().sum())!r}".encode())
        digest.update(str(self.metric).encode())
        return digest.hexdigest()

    def _plainly(self, store: "_Store") -> Iterator[tuple[int, Tensor]]:
        """Cells that look across rows, or that cannot be forked: one padded batch of all inputs per cell."""
        for index in sorted({cell.index for _, cell in self.plain}):
            if not all(store.has(index, row) for row, cell in self.plain if cell.index == index):
                yield index, self._measured_batch(self.run_plain(self.edit_sets[index], self.sites))

    def _measured_batch(self, trace: Trace) -> Tensor:
        """One measurement per input."""
        if isinstance(self.metric, Site):
            return trace[self.metric]
        found = self.metric(trace)
        if found.ndim == 0 and len(self.tokens) == 1:
            found = found[None]
        if found.shape[0] != len(self.tokens):
            raise InputError(
                f"the metric gave shape {tuple(found.shape)} for {len(self.tokens)} inputs; it must give one per row"
            )
        return found

    def _measured_cells(self, trace: Trace, row: int, n_cells: int, looks: Looks) -> Tensor:
        """One measurement per cell, from a trace whose rows are the cells of one input."""
        if isinstance(self.metric, Site):
            return trace[self.metric.of_row(row)]
        if hasattr(self.metric, "for_row"):
            metric = self.metric.for_row(row, len(self.tokens))
            return (metric if looks.tokens is None else metric.among(looks.tokens))(trace)
        # a bare function may do anything with its rows, so it sees one at a time
        return torch.stack([self.metric(trace.row(i)).reshape(-1).squeeze(0) for i in range(n_cells)])


def _sites_of(metric: Any) -> tuple[Site, ...] | None:
    if isinstance(metric, Site):
        return (metric,)
    return getattr(metric, "sites", None)


def unforkable(atlas: Atlas, names: frozenset[str], tokens: Tensor) -> str:
    """Why cells of this model cannot be forked; empty when a probe on the model shows that they can. Asked once per model."""
    known = atlas.plans.get("fork")
    if known is None:
        known = atlas.plans["fork"] = _probed(atlas, names, tokens)
    return known


def gives_single_tokens(atlas: Atlas) -> bool:
    """Whether the unembedding may be asked for some tokens alone; `unforkable` has tried it."""
    return bool(atlas.plans.get("single tokens"))


def _probed(atlas: Atlas, names: frozenset[str], tokens: Tensor) -> str:
    """Fork a few changes of the residual stream and compare with plain runs of the same."""
    if "past_key_values" not in names or getattr(atlas.module.config, "is_encoder_decoder", False):
        return "the model keeps no key-value cache of one stream of tokens"
    length, depth = tokens.shape[0], atlas.depth("")
    layout = {"": Rows.full(1, length)}
    middle = (length // 2, depth // 2)
    probes = [(0, 0), middle, (length - 1, depth - 1), (middle[0], 0)]
    site = at.logits(pos=-1)
    looks = Looks.of((site,), layout[""], "logits_to_keep" in names)
    kwargs = {"input_ids": tokens[None].to(atlas.device)}
    try:
        edit_sets = [as_edits(at.layers[layer].resid_pre(pos=pos).scale(1.5)) for pos, layer in probes]
        edit_sets.append(as_edits(at.layers[depth - 1].resid_post(pos=-1).scale(1.5)))
        cells = [locate(atlas, i, e, layout) for i, e in enumerate(edit_sets)]
        base = base_run(atlas, kwargs, layout, looks)
        found = [run_group(atlas, base, [c for c in cells if c.first >= start], start, looks)[site] for start in {0, middle[0]}]
        ids = [[c.index for c in cells if c.first >= start] for start in {0, middle[0]}]
        atlas.plans["single tokens"] = head_of(atlas) is not None and _same_tokens(atlas, kwargs, layout, looks, cells)
        for rows, which in zip(found, ids, strict=True):
            for value, i in zip(rows, which, strict=True):
                plan = make_plan(atlas, (site,), edit_sets[i], layout, batch=1, until="end")
                plain = {"use_cache": False} if "use_cache" in names else {}
                expected = execute(atlas, kwargs | plain, plan, layout, batch=1)[site][0]
                error = float((value - expected).norm() / expected.norm().clamp(min=1e-12))
                if not error <= (1e-4 if atlas.dtype in (torch.float32, torch.float64) else 5e-2):
                    return f"forked numbers differ from plain ones on this model (relative error {error:.1e} in a probe)"
    except MainspringError as error:
        return f"this model cannot be forked: {error}"
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        return f"this model's forward does not take a growing batch ({type(error).__name__})"
    return ""


def _same_tokens(atlas: Atlas, kwargs: Mapping[str, Any], layout: Mapping[str, Rows], looks: Looks, cells: list[Cell]) -> bool:
    """Whether the logits of two tokens alone are what they are among all."""
    site = looks.logits[0]

    def logits(looks: Looks) -> Tensor:
        return run_group(atlas, base_run(atlas, kwargs, layout, looks), cells, 0, looks)[site]

    whole = logits(looks)
    some = torch.tensor([0, whole.shape[-1] - 1])
    few = logits(replace(looks, tokens=some))
    if few.shape != (*whole.shape[:-1], 2):
        return False
    error = (few - whole[..., some]).norm() / whole[..., some].norm().clamp(min=1e-12)
    return bool(error <= (1e-5 if atlas.dtype in (torch.float32, torch.float64) else 2e-2))


def _written(function: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """A function of an edit as data, so that a sweep can be recognised when it is taken up again."""
    from mainspring.engine.portable.graphs import Graph
    from mainspring.engine.portable.wire import write_graph

    if isinstance(function, Graph):
        return write_graph(function, tensors)
    raise NotPortable(
        f"resume= must recognise the sweep, but an edit holds the Python function {getattr(function, '__name__', function)}; "
        "make it a graph with ms.portable.export, use other verbs, or leave resume= out"
    )


class _Store:
    """The results so far; with a file, kept there after every group, so that an interrupted sweep goes on."""

    def __init__(self, path: Path | None, fingerprint: str, shape: tuple[int, int]) -> None:
        self.path, self.fingerprint, self.shape = path, fingerprint, shape
        self.values: Tensor | None = None
        self.done = torch.zeros(shape, dtype=torch.bool)
        if path is not None and path.is_file():
            from mainspring.storage import open_tensors

            tensors, about = open_tensors(path)
            if about.get("sweep") != fingerprint:
                raise InputError(f"{path} holds another sweep (other edits, inputs or model); choose another file or remove it")
            self.values, self.done = tensors["values"], tensors["done"]

    def has(self, cell: int, row: int) -> bool:
        return bool(self.done[cell, row])

    def put(self, cells: Sequence[int], row: int, values: Tensor) -> None:
        values = values.detach().cpu()
        if self.values is None:
            self.values = torch.full((*self.shape, *values.shape[1:]), float("nan"), dtype=values.dtype)
        self.values[list(cells), row] = values
        self.done[list(cells), row] = True
        self.save()

    def save(self) -> None:
        if self.path is not None and self.values is not None:
            from mainspring.storage import replace_file, tensor_bytes

            content = tensor_bytes({"values": self.values, "done": self.done}, {"sweep": self.fingerprint})
            replace_file(self.path, content)
