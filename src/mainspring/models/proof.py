"""The algebra of a map, proven on a model: what does not hold, in plain words."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.errors import MainspringError
from mainspring.models.maps import Map
from mainspring.models.model import Model
from mainspring.models.observe import adds_up, same
from mainspring.sites import Site
from mainspring.trace import Trace
from mainspring.vocabulary import LAYER_SITES

__all__ = ["failures"]


def failures(module: nn.Module, layout: Map, inputs: dict[str, Any]) -> list[str]:
    """What of a map without constants and post-norms does not hold on this model; empty if all does."""
    try:
        model = Model(module, layout, {}, None, None)
        sites = [s for i in range(model.n_layers) for n in LAYER_SITES if model.can(s := Site(n, i))]
        trace = model.run(inputs, read=sites, until="end")
        if unread := [str(s) for s in sites if s not in trace]:
            return [f"nothing passes at {', '.join(unread[:3])}"]
    except (MainspringError, AttributeError, RuntimeError, ValueError) as error:
        return [f"its sites cannot be read ({str(error).splitlines()[0]})"]
    found: list[str] = []
    try:
        for i in range(model.n_layers):
            found += [f"layers.{i}: {what}" for what in _layer(model, trace, i)]
        if not found:
            found += _stream(model, trace, inputs, model.n_layers // 2)
    except (MainspringError, RuntimeError) as error:
        found.append(f"its tensors do not fit together ({str(error).splitlines()[0]})")
    return found[:3]


def _layer(model: Model, trace: Trace, i: int) -> Iterator[str]:
    def has(*names: str) -> bool:
        return all(Site(n, i) in trace for n in names)

    def get(name: str) -> Tensor:
        return trace[Site(name, i)]

    added = get("attn.add") + get("mlp.add")
    if not adds_up(get("resid_pre"), added, get("resid_post")):
        yield "resid_pre + attn.add + mlp.add is not resid_post"
    if has("resid_mid") and not adds_up(get("resid_pre"), get("attn.add"), get("resid_mid")):
        yield "resid_pre + attn.add is not resid_mid"
    if i and not same(trace[Site("resid_post", i - 1)], get("resid_pre")):
        yield "resid_pre is not the resid_post of the layer before"
    projection: Any = model.atlas.place(Site("attn.head_out", i)).module
    bias = 0 if projection.bias is None else projection.bias
    if not same(get("attn.head_out").sum(dim=2) + bias, get("attn.out")):
        yield "attn.head_out does not add up to attn.out"
    if not same(projection(get("attn.z").flatten(2)), get("attn.out")):
        yield "the projection of attn.z is not attn.out"
    if has("attn.pattern"):
        values = get("attn.v").repeat_interleave(get("attn.z").shape[2] // get("attn.v").shape[2], dim=2)
        if not same(torch.einsum("bhqk,bkhd->bqhd", get("attn.pattern"), values), get("attn.z")):
            yield "attn.pattern times attn.v is not attn.z"
        if not same(get("attn.scores").softmax(dim=-1), get("attn.pattern")):
            yield "the softmax of attn.scores is not attn.pattern"
        if has("attn.v_proj") and not same(get("attn.v_proj"), get("attn.v")):
            yield "attn.v_proj is not attn.v"
    if has("mlp.post"):
        down = model.atlas.place(Site("mlp.post", i)).module
        if not same(down(get("mlp.post")), get("mlp.out")):
            yield "the down projection of mlp.post is not mlp.out"


def _stream(model: Model, trace: Trace, inputs: dict[str, Any], i: int) -> Iterator[str]:
    """What is written reaches all that reads it, and nothing else."""

    def written(name: str) -> Callable[[str], Tensor]:
        """Values of the layer in a run where `name` has random values."""
        site, generator = Site(name, i), torch.Generator().manual_seed(0)
        old = trace[site]
        new = old + torch.randn(old.shape, generator=generator).to(old) * old.std()
        sites = [
            Site(n, i) for n in ("resid_pre", "attn.out", "attn.add", "mlp.post", "mlp.add", "resid_post") if Site(n, i) in trace
        ]
        after = model.run(inputs, read=sites, edits=[site.set(new)], until="end")
        return lambda name: new if name == site.name else after[Site(name, i)]

    def still(get: Callable[[str], Tensor], name: str) -> bool:
        return same(get(name), trace[Site(name, i)])

    for name in ("resid_pre", "attn.add", "mlp.add"):
        get = written(name)
        if not adds_up(get("resid_pre"), get("attn.add") + get("mlp.add"), get("resid_post")):
            yield f"a write to {name} does not reach resid_post as it should"
        if name == "attn.add" and Site("resid_mid", i) not in trace and not still(get, "mlp.add"):
            yield "the MLP reads what attention adds, but no module reads the stream between them"
    if Site("resid_mid", i) in trace:
        get = written("resid_mid")
        if not adds_up(get("resid_mid"), get("mlp.add"), get("resid_post")):
            yield "a write to resid_mid does not reach resid_post as it should"
        if still(get, "mlp.add"):
            yield "a write to resid_mid does not reach the MLP"
    projection = model.atlas.place(Site("attn.head_out", i)).module
    get = written("attn.z")
    if not same(projection(get("attn.z").flatten(2)), get("attn.out")):
        yield "a write to attn.z does not reach attn.out"
    for name in ("mlp.pre", "mlp.up"):
        if Site(name, i) in trace and still(written(name), "mlp.post"):
            yield f"a write to {name} does not reach mlp.post"
