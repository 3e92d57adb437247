"""Invariants that take runs of their own: what an edit does, what a gradient says, what padding must not change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.engine.forms import HeadShare
from mainspring.engine.forms import Seen as FormSeen
from mainspring.engine.places import Place
from mainspring.models.equations import worst
from mainspring.models.report import Row
from mainspring.rows import Rows
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["Bench", "answer", "experiments", "generation", "padding"]

HOOK = "a read equals a plain forward hook"
NO_OP = "a no-op edit changes no bit"
WRITE = "writing x then reading gives x, and changes what follows"
GRADIENT = "the gradient equals finite differences"
EXPLICIT = "the explicit softmax equals the fused kernel"
PROJECTIONS = "q_proj, k_proj and v_proj feed their own heads"
FINAL = "final_norm moves the logits of its own token"
PADDING = "batched equals alone"
GENERATE = "generation equals the model's own"

STEPS = (1e-3, 1e-4, 3e-3, 3e-5)
"""Of finite differences, relative to the norm of the value."""
SLOPE = 5e-2
"""How far a finite difference may be from the gradient."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, an input, the sites that a run on it reaches, and the tolerance of the model's dtype."""

    model: Any
    inputs: Mapping[str, Any]
    places: Mapping[Site, Place]
    tol: float
    seed: int = 0

    def run(self, **options: Any) -> Trace:
        options.setdefault("until", "end")
        return self.model.run(dict(self.inputs), **options)

    @property
    def sampled(self) -> list[Site]:
        """The sites of the first layer of each kind and of the last one, in each stack; and the top sites."""
        kinds: dict[Any, Site] = {}
        chosen = set()
        for stack, tower in self.model.atlas.towers.items():
            for index, layer in enumerate(tower.layers):
                mine = tuple(s.name for s in self.places if (s.stack, s.layers) == (stack, index))
                window = getattr(getattr(layer, "self_attn", None), "sliding_window", None)
                kinds.setdefault((stack, mine, window), Site("resid_pre", index, stack))
            chosen |= {(stack, len(tower.layers) - 1)}
        chosen |= {(s.stack, s.layers) for s in kinds.values()}
        return [s for s in self.places if s.layers is None or (s.stack, s.layers) in chosen]

    def noise(self, like: Tensor) -> Tensor:
        """Random numbers of the size of `like`."""
        drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(self.seed)).to(like)
        finite = torch.where(torch.isfinite(like), like, torch.zeros_like(like))
        return drawn * finite.float().square().mean().sqrt().clamp(min=1e-3).to(like.dtype)


def answer(trace: Trace) -> Tensor:
    """What the run computes: logits, or the first floating tensor of its output."""
    output = trace.output
    for name in ("logits", "last_hidden_state", "logits_per_image"):
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else (output,)
    return next(x for x in parts if isinstance(x, Tensor) and x.is_floating_point())


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
    sites = [s for s in bench.sampled if s in values and s.name != "logits" and (s.stack, s.layers) not in idle]
    sites = [s for s in sites if not bench.places[s].read_only]
    yield from _writes(bench, sites, values, plain)
    yield from _projections(bench)
    yield from _final(bench, plain)
    yield from _gradients(bench, sites, values)


def _name(site: Site) -> str:
    return f"{site.stack} {site.layers}".strip() if site.layers is not None else site.stack


def _by_layer(invariant: str, found: Mapping[Site, tuple[float, str]], tol: float) -> Iterator[Row]:
    """One row a layer, from (error, complaint) by site."""
    layers: dict[str, list[tuple[Site, float, str]]] = {}
    for site, (error, complaint) in found.items():
        layers.setdefault(_name(site), []).append((site, error, complaint))
    for layer, entries in layers.items():
        bad = [f"{s.name}{': ' + c if c else ''}" for s, e, c in entries if c or not e <= tol]
        largest = max((e for _, e, _ in entries if e == e), default=None)
        yield Row(invariant, layer, "failed" if bad else "ok", largest, "; ".join(bad))


def _idle(bench: Bench, plain: Trace) -> set[tuple[str, int]]:
    """Layers whose output nothing reads, as a plain hook that changes it shows: some models compute more than they use."""
    idle = set()
    for stack, layer in sorted({(s.stack, s.layers) for s in bench.sampled if isinstance(s.layers, int)}):
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
    yield from _by_layer(HOOK, found, 0.0)


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
    yield from _by_layer(EXPLICIT, found, bench.tol)


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
    found: dict[Site, tuple[float, str]] = {}
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
    yield from _by_layer(NO_OP, found, 0.0)


def _one_no_op(bench: Bench, site: Site, weights: list[Site]) -> tuple[float, str]:
    try:
        reference = bench.run(read=[site] if site in weights else None)
        edited = bench.run(edits=site.apply(_same))
    except Exception as problem:
        return float("inf"), f"{type(problem).__name__}: {problem}".splitlines()[0]
    error = worst(answer(edited), answer(reference))
    return error, "" if torch.equal(answer(edited), answer(reference)) else "writing its own value back changes the output"


def _writes(bench: Bench, sites: list[Site], values: Mapping[Site, Tensor], plain: Trace) -> Iterator[Row]:
    """A new value arrives: a second reader of the same module sees it, and the output moves."""
    found: dict[Site, tuple[float, str]] = {}
    for site in sites:
        place = bench.places[site]
        explicit = site.name.endswith((".scores", ".pattern"))
        value = values[site]
        new = torch.where(torch.isfinite(value), value + bench.noise(value), value)
        try:
            late: list[Tensor] = []
            handle = _late_reader(place, late, bench)
            try:
                trace = bench.run(edits=site.apply(lambda v, new=new: new), read=site)
            finally:
                if handle is not None:
                    handle.remove()
            reference = answer(bench.run(read=site)) if explicit else answer(plain)
            error = worst(trace[site], new)
            if late:
                error = max(error, worst(late[-1], new))
            moved = not torch.equal(answer(trace), reference)
            complaint = "" if error <= bench.tol else "reads back as something else"
            found[site] = (error, complaint if moved else "the output does not depend on it")
        except Exception as problem:
            found[site] = (float("inf"), f"{type(problem).__name__}: {problem}".splitlines()[0])
    yield from _by_layer(WRITE, found, bench.tol)


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


def _projections(bench: Bench) -> Iterator[Row]:
    """A change of one head of a projection changes that head of what attention gets, and nothing else there."""
    found: dict[Site, tuple[float, str]] = {}
    for site in bench.sampled:
        part, _, rest = site.name.partition(".")
        if rest not in ("q_proj", "k_proj", "v_proj"):
            continue
        parts = {word: Site(f"{part}.{word}", site.layers, site.stack) for word in "qkv"}
        if not all(s in bench.places for s in parts.values()):
            continue
        try:
            found[site] = _one_projection(bench, site, rest[0], parts)
        except Exception as problem:
            found[site] = (float("inf"), f"{type(problem).__name__}: {problem}".splitlines()[0])
    if found:
        yield from _by_layer(PROJECTIONS, found, 0.3)


def _one_projection(bench: Bench, site: Site, word: str, parts: Mapping[str, Site]) -> tuple[float, str]:
    plain = bench.run(read=[site, *parts.values()])
    heads = plain[site].shape[2]
    largest = 0.0
    for head in sorted({0, heads - 1}):
        value = plain[site][:, :, head]
        selector = {"head" if (site.axes or ())[2] == "head" else "kv_head": head}
        moved = bench.run(edits=site(**selector).set(value + bench.noise(value)), read=list(parts.values()))
        for other, place in parts.items():
            change = (moved[place] - plain[place]).double().norm(dim=-1).sum((0, 1))
            if other != word:
                if float(change.sum()) > 0:
                    return float("inf"), f"{word}_proj also changes {other}"
                continue
            if float(change.sum()) == 0:
                return float("inf"), f"{word}_proj does not change {word}"
            # keys may reach attention repeated for every query head; norms over all heads spread a little
            group = change.numel() // heads if change.numel() > heads else 1
            outside = change.sum() - change[head * group : (head + 1) * group].sum()
            share = float(outside / change.sum())
            largest = max(largest, share)
            if share > 0.3:
                return share, f"head {head} of {word}_proj changes other heads of {word}"
    return largest, ""


def _final(bench: Bench, plain: Trace) -> Iterator[Row]:
    site = Site("final_norm")
    if site not in bench.places or bench.places[site].end != "output":
        return
    logits = answer(plain)
    value = bench.run(read=site)[site]
    if value.ndim != 3 or logits.ndim != 3 or logits.shape[:2] != value.shape[:2]:
        yield Row(FINAL, "", "not applicable", None, "the output has no tokens")
        return
    last = value.shape[1] - 1
    new = value.clone()
    new[:, last] += bench.noise(value[:, last])
    moved = (answer(bench.run(edits=site.apply(lambda v: new))) - logits).abs().amax(dim=(0, 2))
    stray = float(moved[:last].max()) if last else 0.0
    if float(moved[last]) == 0.0:
        yield Row(FINAL, "", "failed", None, "the logits do not depend on it")
    else:
        yield Row(FINAL, "", "failed" if stray > 0 else "ok", stray, "it moves the logits of other tokens" if stray > 0 else "")


def _gradients(bench: Bench, sites: list[Site], values: Mapping[Site, Tensor]) -> Iterator[Row]:
    """Along a direction that is half the gradient and half noise.

    A step too long crosses into another choice of experts, one too short drowns in rounding: one of several must agree.
    """
    if bench.model.dtype not in (torch.float32, torch.float64):
        yield Row(GRADIENT, "", "not applicable", None, f"finite differences mean nothing in {bench.model.dtype}")
        return
    weight = bench.noise(answer(bench.run()))

    def metric(trace: Trace) -> Tensor:
        return (answer(trace) * weight).sum()

    trace = bench.run(read=sites, grad_of=metric)
    found: dict[Site, tuple[float, str]] = {}
    for site in sites:
        value, gradient = values[site], trace.grad[site].double()
        gradient = torch.where(torch.isfinite(value), gradient, torch.zeros_like(gradient))
        if float(gradient.norm()) == 0.0:
            found[site] = (float("inf"), "it is zero")
            continue
        finite = torch.where(torch.isfinite(value), value, torch.zeros_like(value))
        noise = bench.noise(value).double() * torch.isfinite(value)
        direction = gradient / gradient.norm() + noise / noise.norm()
        expected, size = float((gradient * direction).sum()), float(finite.double().norm().clamp(min=1e-3))
        error = float("inf")
        for step in STEPS:
            shift = (direction * (step * size)).to(value.dtype)
            ends = [float(metric(bench.run(edits=site.apply(lambda v, d=sign * shift: v + d))).double()) for sign in (1, -1)]
            error = min(error, abs((ends[0] - ends[1]) / (2 * step * size) - expected) / abs(expected))
            if error <= SLOPE:
                break
        found[site] = (error, "")
    yield from _by_layer(GRADIENT, found, SLOPE)


def padding(bench: Bench, sides: Mapping[str, tuple[Mapping[str, Any], list[Mapping[str, Any]]]]) -> Iterator[Row]:
    """`sides` gives for each padding side a batch, and the same rows alone."""
    stacks = [s for s in bench.model.atlas.towers if s != "vision"]
    last = [Site("resid_post", bench.model.atlas.depth(s) - 1, s) for s in stacks]
    first = [Site("attn.z", 0, s) for s in stacks]
    reads = [s for s in (*last, *first) if s in bench.places]
    for side, (batch, alone) in sides.items():
        name = f"{PADDING}, padded on the {side}"
        together = bench.model.run(dict(batch), read=reads, until="end")
        singles = [bench.model.run(dict(row), read=reads, until="end") for row in alone]
        errors = [
            worst(together.row(i)[site], single[site])
            for i, single in enumerate(singles)
            for site in reads
            if site in single.read.values
        ]
        error = max(errors, default=0.0)
        if error <= bench.tol:
            yield Row(name, "", "ok", error)
            continue
        own, same = _bare_padding(bench, batch, alone, together)
        if same and own > bench.tol:
            note = f"the bare model itself is not exact there: its output is off by {own:.1e}"
            yield Row(name, "", "not applicable", error, note)
        else:
            yield Row(name, "", "failed", error, "padding changes what is read")


def _bare_padding(bench: Bench, batch: Mapping[str, Any], alone: list[Mapping[str, Any]], together: Trace) -> tuple[float, bool]:
    """How far the bare module's own output is from exact under this padding, and whether the run gave that very output."""
    module, rows = bench.model.module, together.read.rows.get("")
    with torch.no_grad():
        padded, singles = module(**batch), [module(**row) for row in alone]
    outputs = [next((getattr(o, n) for n in ("logits", "last_hidden_state") if hasattr(o, n)), None) for o in (padded, *singles)]
    whole = outputs[0]
    if rows is None or not isinstance(whole, Tensor) or whole.ndim != 3 or whole.shape[1] != rows.width:
        return 0.0, False
    errors = [
        worst(whole[i, rows.offsets[i] : rows.offsets[i] + rows.lengths[i]], single[0])
        for i, single in enumerate(outputs[1:])
        if isinstance(single, Tensor)
    ]
    real = rows.mask().to(whole.device)
    return max(errors, default=0.0), worst(answer(together)[real], whole[real]) <= bench.tol


def generation(bench: Bench, prompt: Tensor, new: int = 5) -> Iterator[Row]:
    """Greedy, from one prompt of tokens."""
    module = bench.model.module
    if not hasattr(bench.model, "generate") or not getattr(module, "can_generate", lambda: False)():
        yield Row(GENERATE, "", "not applicable", None, "this model does not generate")
        return
    with torch.no_grad():
        own = module.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False)
    ours = bench.model.generate(prompt, max_new_tokens=new).tokens
    equal = ours.shape == own.shape and bool(torch.equal(ours, own))
    yield Row(GENERATE, "", "ok" if equal else "failed", None, "" if equal else f"{own[0].tolist()} became {ours[0].tolist()}")
