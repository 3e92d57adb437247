"""Invariants about hooks and edits: reads see what torch's hooks see, no-ops change nothing, what is written arrives."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.engine.forms import HeadShare
from mainspring.engine.forms import Seen as FormSeen
from mainspring.engine.places import Place
from mainspring.models.invariants.bench import Bench, Found, answer, by_layer, problem_of
from mainspring.models.invariants.equations import Seen, residual, worst
from mainspring.models.invariants.influence import final, gradients, projections
from mainspring.models.report import Row
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace
from mainspring.vocabulary import LAYER_SITES

__all__ = ["experiments"]

HOOK = "a read equals a plain forward hook"
NO_OP = "a no-op edit changes no bit"
WRITE = "writing x then reading gives x, and changes what follows"
EXPLICIT = "the explicit softmax equals the fused kernel"

STREAM = ("resid_pre", "resid_mid", "resid_post", ".out", ".add")
"""Sites that the equations of the residual stream need."""


def experiments(bench: Bench, values: Mapping[Site, Tensor]) -> Iterator[Row]:
    """Everything that runs on the one input."""
    plain = bench.run()
    if not torch.equal(answer(plain), answer(bench.run())):
        yield Row("a run is deterministic", "", "failed", None, "two runs differ: is the model in eval mode?")
        return
    yield Row("a run is deterministic", "", "ok", 0.0)
    yield from _hooks(bench, values)
    yield from _explicit(bench, values, plain)
    yield from _no_op(bench, plain)
    idle = _idle(bench, plain)
    for stack, layer in idle:
        yield Row(WRITE, f"{stack} {layer}".strip(), "not applicable", None, "the output does not depend on this layer at all")
    sites = [s for s in bench.sampled() if s in values and s.name != "logits" and (s.stack, s.layers) not in idle]
    sites = [s for s in sites if not bench.places[s].read_only]
    yield from _writes(bench, sites, values, plain)
    yield from projections(bench, values)
    yield from final(bench, plain)
    yield from gradients(bench, [s for s in sites if (s.stack, s.layers) in bench.kinds], values)


def _idle(bench: Bench, plain: Trace) -> set[tuple[str, int]]:
    """Layers whose output nothing reads, as a plain hook that changes it shows: some models compute more than they use."""
    idle = set()
    for stack, layer in sorted({(s.stack, s.layers) for s in bench.sampled() if isinstance(s.layers, int)}):
        module = bench.model.atlas.layer(stack, layer)

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            value = output if isinstance(output, Tensor) else output[0]
            new = value + bench.noise(value)
            return new if isinstance(output, Tensor) else (new, *output[1:])

        handle = module.register_forward_hook(hook)
        try:
            if torch.equal(answer(bench.run()), answer(plain)):
                idle.add((stack, layer))
        finally:
            handle.remove()
    return idle


def _hooks(bench: Bench, values: Mapping[Site, Tensor]) -> Iterator[Row]:
    """The raw tensors as torch's own hooks see them in a forward pass of the bare module."""
    prepared = bench.model.prepare(dict(bench.inputs))
    raws: dict[Site, tuple[Tensor, Tensor | None]] = {}
    handles = []

    def before(site: Site, place: Place) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raws[site] = _given(place, args, kwargs).clone(), None

        return hook

    def after(site: Site, place: Place) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raws[site] = _returned(place, output).clone(), args[0].clone() if args and isinstance(args[0], Tensor) else None

        return hook

    for site, place in bench.places.items():
        if place.end == "input" and place.site in values:
            handles.append(place.module.register_forward_pre_hook(before(site, place), with_kwargs=True))
        elif place.end == "output" and place.site in values:
            handles.append(place.module.register_forward_hook(after(site, place)))
    kwargs = dict(prepared.kwargs)
    if "use_cache" in bench.model._names:
        kwargs.setdefault("use_cache", False)
    try:
        with torch.no_grad():
            bench.model.module(**kwargs)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for site, (raw, inputs) in raws.items():
        place = bench.places[site]
        seen = place.form.read(raw, FormSeen(inputs, prepared.batch))
        equal = seen.shape == values[site].shape and bool(torch.equal(seen, values[site]))
        found[site] = (0.0 if equal else float("inf"), "" if equal else "differs from what the module passes on")
    yield from by_layer(HOOK, found, 0.0)


def _explicit(bench: Bench, values: Mapping[Site, Tensor], plain: Trace) -> Iterator[Row]:
    """Reading scores and patterns makes a layer write its softmax out; what it gives must stay the same."""
    weights = [s for s in bench.places if s.name.endswith(".pattern")]
    if not weights:
        yield Row(EXPLICIT, "", "not applicable", None, "no attention pattern is offered")
        return
    mixed = [Site(s.name.replace("pattern", "z"), s.layers, s.stack) for s in weights]
    fused = {s: values[s] for s in mixed if s in values}
    trace = bench.run(read=[*weights, *fused])
    found = {s: (worst(_real(plain, s, trace[s]), _real(plain, s, v)), "") for s, v in fused.items()}
    found[Site("logits")] = (worst(answer(trace), answer(plain)), "") if not _padded(bench) else (0.0, "")
    yield from by_layer(EXPLICIT, found, bench.tol)


def _padded(bench: Bench) -> bool:
    return any(rows.padded for rows in bench.model.prepare(dict(bench.inputs)).rows.values())


def _real(trace: Trace, site: Site, value: Tensor) -> Tensor:
    layout: Rows | None = trace.read.rows.get(site.stack)
    if layout is None or not layout.padded or value.ndim < 3 or value.shape[1] != layout.width:
        return value
    return value[layout.mask().to(value.device)]


def _same(value: Tensor) -> Tensor:
    return value


def _no_op(bench: Bench, plain: Trace) -> Iterator[Row]:
    """All sites at once; where a bit changes, one by one."""
    writable = [s for s, p in bench.places.items() if not p.read_only]
    weights = [s for s in writable if s.name.endswith((".scores", ".pattern"))]
    found: dict[Site, Found] = {}
    for sites, reference in (
        ([s for s in writable if s not in weights], plain),
        (weights, bench.run(read=weights) if weights else plain),
    ):
        if not sites:
            continue
        try:
            together = bench.run(edits=[s.apply(_same) for s in sites])
            if torch.equal(answer(together), answer(reference)):
                found |= dict.fromkeys(sites, (0.0, ""))
                continue
        except Exception:  # the same error comes again below, with the name of its site
            pass
        for site in sites:
            found[site] = _one_no_op(bench, site, weights)
    yield from by_layer(NO_OP, found, 0.0)


def _one_no_op(bench: Bench, site: Site, weights: list[Site]) -> Found:
    try:
        reference = bench.run(read=[site] if site in weights else None)
        edited = bench.run(edits=site.apply(_same))
    except Exception as problem:
        return problem_of(problem)
    error = worst(answer(edited), answer(reference))
    return error, "" if torch.equal(answer(edited), answer(reference)) else "writing its own value back changes the output"


def _writes(bench: Bench, sites: list[Site], values: Mapping[Site, Tensor], plain: Trace) -> Iterator[Row]:
    """A new value arrives: a second reader of the same module sees it, and the output moves."""
    found: dict[Site, Found] = {}
    for site in sites:
        place = bench.places[site]
        explicit = site.name.endswith((".scores", ".pattern"))
        value = values[site]
        new = torch.where(torch.isfinite(value), value + bench.noise(value), value)
        # the stream must still add up: what is written to it must reach all that reads it
        around = [s for s in bench.places if (s.stack, s.layers) == (site.stack, site.layers) and s.name.endswith(STREAM)]
        late: list[Tensor] = []
        handle = _late_reader(place, late, bench)
        try:
            trace = bench.run(edits=site.apply(lambda v, new=new: new), read=[site, *(s for s in around if not explicit)])
            reference = answer(bench.run(read=site)) if explicit else answer(plain)
            error = max(worst(x, new) for x in (trace[site], *late[-1:]))
            complaint = "" if error <= bench.tol else "reads back as something else"
            if torch.equal(answer(trace), reference):
                complaint = "the output does not depend on it"
            if site.name in ("resid_pre", "resid_mid") and not complaint and isinstance(site.layers, int):
                seen = Seen(bench.model, _with_aliases(bench, trace), bench.places, bench.refusals, trace.read.rows, bench.tol)
                verdict, _, note = residual(seen, site.stack, site.layers, site.name)
                complaint = f"afterwards {note}" if verdict == "failed" else ""
            found[site] = (error, complaint)
        except Exception as problem:
            found[site] = problem_of(problem)
        finally:
            if handle is not None:
                handle.remove()
    yield from by_layer(WRITE, found, bench.tol)


def _with_aliases(bench: Bench, trace: Trace) -> dict[Site, Tensor]:
    """What a run kept, also under the names that are the same tensor."""
    kept = dict(trace.read.items())
    for site in list(kept):
        for name in LAYER_SITES:
            other = Site(name, site.layers, site.stack)
            if other not in bench.refusals and bench.model.atlas.place(other).site == site:
                kept[other] = kept[site]
    return kept


def _late_reader(place: Place, kept: list[Tensor], bench: Bench) -> Any:
    """A plain hook that stands behind the engine's own and sees what the module was really given, or really gave."""
    forms = [place.form, *vars(place.form).values()]
    if place.end not in ("input", "output") or any(isinstance(form, HeadShare) for form in forms):
        return None  # an attention function has no hooks, and of a head's share only the sum flows on
    batch = bench.model.prepare(dict(bench.inputs)).batch

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        raw = _given(place, args, kwargs) if place.end == "input" else _returned(place, output)
        kept.append(place.form.read(raw, FormSeen(None, batch)).clone())

    return place.module.register_forward_hook(hook, with_kwargs=True)


def _given(place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    named = kwargs.get(place.item) if isinstance(place.item, str) else None
    return next(x for x in (named, *args, *kwargs.values()) if isinstance(x, Tensor))


def _returned(place: Place, output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    item = 0 if place.item is None else place.item
    return getattr(output, item) if isinstance(item, str) else output[item]
