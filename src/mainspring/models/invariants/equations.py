"""Invariants that are equations between the values of one run: the residual stream, attention, the MLP and the head."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.engine.places import Place
from mainspring.errors import SiteRefused
from mainspring.models.maps import find_module
from mainspring.models.report import Row
from mainspring.rows import Rows
from mainspring.sites import Site

__all__ = ["Seen", "equations", "refusals", "residual", "worst"]

RESIDUAL = "the residual adds up"
HEADS = "attn.out is the sum of head_out and the bias"
SOFTMAX = "softmax(scores) is the pattern"
MIX = "pattern @ v is z"
DOWN = "mlp.out is the down projection of mlp.post"
NORM = "final_norm normalises the last resid_post"
HEAD = "logits come from final_norm"


@dataclass(frozen=True, eq=False)
class Seen:
    """The sites of a model that can be read, what one run found there, and why the others are refused."""

    model: Any
    values: Mapping[Site, Tensor]
    places: Mapping[Site, Place]
    refusals: Mapping[Site, str]
    rows: Mapping[str, Rows]
    tol: float
    logits: Tensor | None = None
    head: tuple[Tensor, Tensor] | None = None
    """The input and the output of the module that unembeds, where the model has one."""
    reached: frozenset[str] = field(default_factory=frozenset)

    def get(self, stack: str, layer: int | None, name: str) -> Tensor | None:
        """A value, or None where it is refused or was not reached."""
        return self.values.get(Site(name, layer, stack))

    def real(self, site: Site, value: Tensor) -> Tensor:
        """The entries of real tokens, flattened over rows and tokens."""
        axes = site.axes or ()
        axis = next((axes.index(a) for a in ("pos", "query") if a in axes), None)
        layout = self.rows.get(site.stack)
        if axis is None or layout is None or not layout.padded or value.shape[axis] != layout.width:
            return value
        moved = value.movedim(axis, 1)
        return moved[layout.mask().to(value.device)]


def worst(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a token: over the last axis, measured against that token and a little of the largest one."""
    if found.shape != expected.shape:
        raise ValueError(f"shape {list(found.shape)} instead of {list(expected.shape)}")
    a, b = found.detach().double(), expected.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())  # also where both are infinite
    a, b = a.masked_fill(same, 0.0), b.masked_fill(same & ~b.isfinite(), 0.0)
    error, size = (a - b.masked_fill(same, 0.0)).norm(dim=-1), b.norm(dim=-1)
    scale = size + 1e-2 * (size.max() if size.numel() else 0.0)
    ratio = torch.where(error == 0, torch.zeros_like(error), error / scale.clamp(min=1e-30))
    return float(ratio.max()) if ratio.numel() else 0.0


def equations(seen: Seen) -> Iterator[Row]:
    """Every equation on every layer that the run reached."""
    for stack, tower in seen.model.atlas.towers.items():
        if stack not in seen.reached:
            continue
        for index in range(len(tower.layers)):
            name = f"{stack} {index}".strip()
            yield from _guarded(RESIDUAL, name, lambda s=stack, i=index: residual(seen, s, i))
            for kind in ("attn", "cross"):
                if seen.get(stack, index, f"{kind}.out") is None and Site(f"{kind}.out", index, stack) not in seen.refusals:
                    continue
                for invariant, equation in ((HEADS, _heads), (SOFTMAX, _softmax), (MIX, _mix)):
                    if kind == "cross" and Site("cross.z", index, stack) in seen.refusals:
                        continue
                    title = invariant if kind == "attn" else invariant.replace("attn.", "cross.")
                    yield from _guarded(title, name, lambda e=equation, s=stack, i=index, k=kind: e(seen, s, i, k))
            yield from _guarded(DOWN, name, lambda s=stack, i=index: _down(seen, s, i))
        yield from _guarded(NORM, stack, lambda s=stack, t=tower: _norm(seen, s, len(t.layers) - 1))
    yield from _guarded(HEAD, "", lambda: _head(seen))


Outcome = tuple[str, float | None, str]


def _guarded(invariant: str, layer: str, equation: Callable[[], Outcome]) -> Iterator[Row]:
    """A row from an equation; one that cannot even be written down has failed."""
    try:
        verdict, error, note = equation()
    except Exception as problem:
        verdict, error, note = "failed", None, f"{type(problem).__name__}: {problem}".splitlines()[0]
    yield Row(invariant, layer, verdict, error, note)  # type: ignore[arg-type]


def _verdict(seen: Seen, errors: list[float], notes: list[str]) -> Outcome:
    largest = max(errors)
    bad = [note for error, note in zip(errors, notes, strict=True) if not error <= seen.tol]
    return ("failed", largest, "; ".join(bad)) if bad else ("ok", largest, "")


def _refused(seen: Seen, stack: str, layer: int | None, *names: str) -> Outcome | None:
    """Why an equation cannot be written, if one of its sites is refused."""
    for name in names:
        site = Site(name, layer, stack)
        if site in seen.refusals:
            return "refused", None, f"{name}: {seen.refusals[site]}"
        if site not in seen.values:
            return "failed", None, f"{name} was not reached by the run"
    return None


def residual(seen: Seen, stack: str, layer: int, written: str = "") -> Outcome:
    """Verdict, error and note: whether the stream after a layer is the stream before it with what its sublayers add.

    Where `written` is resid_mid, only what follows it must still hold.
    """
    tower = seen.model.atlas.towers[stack]
    module, table = tower.layers[layer], tower.stack
    if missing := _refused(seen, stack, layer, "resid_pre", "resid_post"):
        return missing
    pre, mid, post = (_wide(seen, stack, layer, name) for name in ("resid_pre", "resid_mid", "resid_post"))
    assert pre is not None
    assert post is not None
    adds = {name: _wide(seen, stack, layer, f"{name}.add") for name in ("attn", "cross", "ssm", "mlp")}
    mixers = {name: value for name, value in adds.items() if name != "mlp" and value is not None}
    norms = [find_module(module, path) for path in table.norms]
    before: Callable[[Tensor, int], Tensor] = lambda x, i: x
    after = before
    if table.residual in ("normed", "post-norm"):
        dtype = seen.model.dtype

        def normed(x: Tensor, i: int) -> Tensor:
            norm = norms[i]
            assert norm is not None, f"there is no norm at {table.norms[i]}"
            return norm(x.to(dtype)).double()

        before, after = (normed, before) if table.residual == "normed" else (before, normed)
    errors, notes, unknown = [], [], []
    if mid is not None:
        if written == "resid_mid":
            pass
        elif mixers:
            found = after(before(pre, 0) + sum(mixers.values()), 0)
            errors.append(_at(seen, stack, layer, found, mid))
            notes.append(f"resid_mid is not resid_pre with {' + '.join(f'{m}.add' for m in mixers)}")
        else:
            unknown.append("attn.add")
        if adds["mlp"] is not None:
            found = after(before(mid, 1) + adds["mlp"], 1)
            errors.append(_at(seen, stack, layer, found, post))
            notes.append("resid_post is not resid_mid with mlp.add")
        else:
            unknown.append("mlp.add")
    else:
        given = {name: value for name, value in adds.items() if value is not None}
        if not given or table.residual in ("normed", "post-norm"):
            return _refused(seen, stack, layer, "resid_mid", "attn.add") or ("failed", None, "no sublayer adds to the stream")
        errors.append(_at(seen, stack, layer, pre + sum(given.values()), post))
        notes.append(f"resid_post is not resid_pre with {' + '.join(f'{m}.add' for m in given)}")
    verdict = _verdict(seen, errors, notes) if errors else None
    if unknown and (verdict is None or verdict[0] == "ok"):
        return (
            "refused",
            None if verdict is None else verdict[1],
            f"{unknown[0]}: {seen.refusals.get(Site(unknown[0], layer, stack), '')}",
        )
    assert verdict is not None
    return verdict


def _wide(seen: Seen, stack: str, layer: int, name: str) -> Tensor | None:
    value = seen.get(stack, layer, name)
    return None if value is None else value.double()


def _at(seen: Seen, stack: str, layer: int, found: Tensor, expected: Tensor) -> float:
    site = Site("resid_post", layer, stack)
    return worst(seen.real(site, found), seen.real(site, expected))


def _heads(seen: Seen, stack: str, layer: int, kind: str) -> Outcome:
    if missing := _refused(seen, stack, layer, f"{kind}.head_out", f"{kind}.out"):
        return missing
    site = Site(f"{kind}.head_out", layer, stack)
    out, shares = seen.values[Site(f"{kind}.out", layer, stack)], seen.values[site].double().sum(dim=-2)
    bias = getattr(seen.places[site].module, "bias", None)
    found = shares if bias is None else shares + bias.double()
    return _verdict(seen, [worst(seen.real(site, found), seen.real(site, out))], [f"{kind}.head_out sums to something else"])


def _softmax(seen: Seen, stack: str, layer: int, kind: str) -> Outcome:
    if missing := _refused(seen, stack, layer, f"{kind}.scores", f"{kind}.pattern"):
        return missing
    site = Site(f"{kind}.pattern", layer, stack)
    scores, pattern = (
        seen.real(site, seen.values[Site(f"{kind}.scores", layer, stack)]).float(),
        seen.real(site, seen.values[site]).float(),
    )
    expected = torch.softmax(scores, dim=-1).nan_to_num(0.0)  # a row that may look at nothing has no weights
    if getattr(seen.places[site].module, "sinks", None) is not None:  # a learned score takes part of the weight
        pattern = pattern / pattern.sum(-1, keepdim=True).clamp(min=1e-12)
    return _verdict(seen, [worst(pattern, expected)], ["the weights are not the softmax of the scores"])


def _mix(seen: Seen, stack: str, layer: int, kind: str) -> Outcome:
    if missing := _refused(seen, stack, layer, f"{kind}.pattern", f"{kind}.v", f"{kind}.z"):
        return missing
    site = Site(f"{kind}.z", layer, stack)
    pattern, v = (
        seen.values[Site(f"{kind}.pattern", layer, stack)].double(),
        seen.values[Site(f"{kind}.v", layer, stack)].double(),
    )
    heads, shared = pattern.shape[1], v.shape[2]
    if heads % shared:
        raise ValueError(f"{heads} heads cannot share {shared} key-value heads")
    found = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(heads // shared, dim=2))
    return _verdict(seen, [worst(seen.real(site, found), seen.real(site, seen.values[site]))], ["z mixes other values"])


def _down(seen: Seen, stack: str, layer: int) -> Outcome:
    if missing := _refused(seen, stack, layer, "mlp.post", "mlp.out"):
        return missing
    site = Site("mlp.post", layer, stack)
    place, out = seen.places[site], seen.values[Site("mlp.out", layer, stack)]
    if place.end != "input":
        return "failed", None, "mlp.post is not what a projection is given"
    with torch.no_grad():
        found = place.module(seen.values[site])
    kept = Site("mlp.out", layer, stack)
    return _verdict(
        seen, [worst(seen.real(kept, found), seen.real(kept, out))], ["mlp.post goes through its projection to something else"]
    )


def _norm(seen: Seen, stack: str, last: int) -> Outcome:
    if missing := _refused(seen, stack, None, "final_norm"):
        return missing
    if missing := _refused(seen, stack, last, "resid_post"):
        return missing
    place, stream = seen.places[Site("final_norm", None, stack)], Site("resid_post", last, stack)
    if place.end != "output":
        return "not applicable", None, "final_norm is not the output of a module"
    with torch.no_grad():
        found = place.module(seen.values[stream])
    normed = seen.values[Site("final_norm", None, stack)]
    return _verdict(seen, [worst(seen.real(stream, found), seen.real(stream, normed))], ["final_norm normalises something else"])


def _head(seen: Seen) -> Outcome:
    if missing := _refused(seen, "", None, "final_norm"):
        return missing
    if seen.logits is None or seen.head is None:
        return "not applicable", None, "this model has no unembedding that is a module"
    normed = seen.values[Site("final_norm")]
    given, raw = seen.head
    site = Site("final_norm")
    if given.shape != normed.shape or seen.logits.shape != raw.shape or not _unembeds(seen.model.module):
        return "not applicable", None, "other modules stand between the final norm and the logits"
    factor = _factor(normed, given)
    errors = [worst(seen.real(site, factor * normed.double()), seen.real(site, given))]
    notes = ["the head reads something else"]
    config = seen.model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    options = [raw.double() * _factor(raw, seen.logits)]
    if (cap := getattr(text, "final_logit_softcapping", None)) is not None:
        options.append(torch.tanh(raw.double() / cap) * cap)
    errors.append(min(worst(seen.real(site, option), seen.real(site, seen.logits)) for option in options))
    notes.append("the logits are not the head's output, scaled or soft-capped")
    return _verdict(seen, errors, notes)


def _factor(a: Tensor, b: Tensor) -> float:
    """The constant by which `a` best gives `b`."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a @ b) / (a @ a).clamp(min=1e-30))


def _unembeds(module: nn.Module) -> bool:
    return type(module).__name__.endswith(("LMHeadModel", "CausalLM", "ConditionalGeneration"))


def refusals(model: Any, sites: list[Site]) -> tuple[dict[Site, Place], dict[Site, str]]:
    """Where each site is, or why not."""
    places: dict[Site, Place] = {}
    reasons: dict[Site, str] = {}
    for site in sites:
        try:
            places[site] = model.atlas.place(site)
        except SiteRefused as error:
            reasons[site] = error.reason
    return places, reasons
