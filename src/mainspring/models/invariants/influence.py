"""Invariants about what moves what: projections and their heads, the final norm and its logits, gradients and slopes."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mainspring.models.invariants.bench import Bench, Found, answer, by_layer, problem_of
from mainspring.models.report import Row
from mainspring.sites import Site
from mainspring.trace import Trace

__all__ = ["final", "gradients", "projections"]

GRADIENT = "the gradient equals finite differences"
PROJECTIONS = "q_proj, k_proj and v_proj feed their own heads"
FINAL = "final_norm moves the logits of its own token"

SPREAD = 0.3
"""How much of a head's change may go to other heads: norms over all heads spread a little."""
STEPS = (1e-3, 1e-4, 3e-3, 3e-5)
"""Of finite differences, relative to the norm of the value."""
SLOPE = 5e-2
"""How far a finite difference may be from the gradient."""


def projections(bench: Bench, values: Mapping[Site, Tensor]) -> Iterator[Row]:
    """A change of one head of a projection changes that head of what attention gets, and nothing else there."""
    found: dict[Site, Found] = {}
    for site in bench.sampled(last=False):
        part, _, rest = site.name.partition(".")
        if rest not in ("q_proj", "k_proj", "v_proj"):
            continue
        parts = {word: Site(f"{part}.{word}", site.layers, site.stack) for word in "qkv"}
        if not all(s in values for s in (site, *parts.values())):
            continue
        try:
            found[site] = _one_projection(bench, site, rest[0], parts, values)
        except Exception as problem:
            found[site] = problem_of(problem)
    if found:
        yield from by_layer(PROJECTIONS, found, SPREAD)


def _one_projection(bench: Bench, site: Site, word: str, parts: Mapping[str, Site], values: Mapping[Site, Tensor]) -> Found:
    heads = values[site].shape[2]
    key = "head" if "head" in (site.axes or ()) else "kv_head"
    largest = 0.0
    for head in sorted({min(1, heads - 1), heads - 1}):
        value = values[site][:, :, head]
        edit = site(**{key: head}).set(value + bench.noise(value))
        moved = bench.run(edits=edit, read=list(parts.values()), until="auto")
        for other, place in parts.items():
            change = (moved[place] - values[place]).double().norm(dim=-1).sum((0, 1))
            if other != word:
                if float(change.sum()) > 0:
                    return float("inf"), f"{word}_proj also changes {other}"
                continue
            if float(change.sum()) == 0:
                return float("inf"), f"{word}_proj does not change {word}"
            # keys may reach attention repeated for every query head
            group = change.numel() // heads if change.numel() > heads else 1
            outside = change.sum() - change[head * group : (head + 1) * group].sum()
            largest = max(largest, float(outside / change.sum()))
            if largest > SPREAD:
                return largest, f"head {head} of {word}_proj changes other heads of {word}"
    return largest, ""


def final(bench: Bench, plain: Trace) -> Iterator[Row]:
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


def gradients(bench: Bench, sites: list[Site], values: Mapping[Site, Tensor]) -> Iterator[Row]:
    """Along a direction that is half the gradient and half noise.

    A step too long crosses into another choice of experts, one too short drowns in rounding: one of several must agree.
    """
    if bench.model.dtype not in (torch.float32, torch.float64):
        yield Row(GRADIENT, "", "not applicable", None, f"finite differences mean nothing in {bench.model.dtype}")
        return
    plain = bench.run()
    weight = bench.noise(answer(plain))
    layout = plain.read.rows.get("")
    if layout is not None and layout.padded and weight.shape[:2] == (layout.batch, layout.width):
        weight = weight * layout.mask().to(weight)[:, :, None]  # what is computed at padding means nothing

    def metric(trace: Trace) -> Tensor:
        return (answer(trace) * weight).sum()

    trace = bench.run(read=sites, grad_of=metric)
    found: dict[Site, Found] = {}
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
    yield from by_layer(GRADIENT, found, SLOPE)
