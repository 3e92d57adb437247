"""What must hold on every stack of every mapped model, checked with plain torch on tiny random models.

`Bench` pairs one stack of one zoo case with our `Model`; the `check_*` functions are the invariants. A new family needs no new
check, only a case.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from conformance.zoo import CASES
from mainspring.edits import Edit
from mainspring.models.load import wrap
from mainspring.models.maps import find_module
from mainspring.models.model import Model
from mainspring.sites import Site
from mainspring.trace import Trace
from mainspring.vocabulary import LAYER_SITES

WEIGHTS = ("scores", "pattern")
HEADS = ("attn", "cross")


@dataclass
class Bench:
    """One stack of one case."""

    name: str
    stack: str = ""
    changes: Callable[[nn.Module], nn.Module] = lambda module: module

    @cached_property
    def model(self) -> Model:
        return wrap(self.changes(CASES[self.name].build()))

    @cached_property
    def inputs(self) -> dict[str, Any]:
        return CASES[self.name].inputs()

    @property
    def depth(self) -> int:
        return self.model.atlas.depth(self.stack)

    @property
    def layout(self) -> Any:
        """The stack's entry in the map."""
        return self.model.atlas.towers[self.stack].stack

    def layer(self, index: int) -> nn.Module:
        return self.model.atlas.layer(self.stack, index)

    def site(self, name: str, layer: int | None = None) -> Site:
        return Site(name, layer, self.stack)

    def offers(self, name: str, layer: int) -> bool:
        return bool(self.model.can(self.site(name, layer)))

    def sites(self, layer: int | None = None, weights: bool = False) -> list[Site]:
        """Every site of the layers (or of one) that the map offers; with or without those that need the explicit softmax."""
        layers = range(self.depth) if layer is None else [layer]
        found = [self.site(name, i) for i in layers for name in LAYER_SITES if self.offers(name, i)]
        found += [s for s in (self.site("embed"), self.site("final_norm")) if self.model.can(s)]
        found += [Site(n) for n in ("projector", "image_tokens") if self.stack == "vision" and self.model.can(Site(n))]
        return [s for s in found if weights or not s.name.endswith(WEIGHTS)]

    def run(self, read: Iterable[Site] = (), edits: Iterable[Edit] = (), **options: Any) -> Trace:
        with torch.no_grad():
            return self.model.run(self.inputs, read=list(read), edits=list(edits), until="end", **options)

    @cached_property
    def whole(self) -> Trace:
        """All sites of the stack, scores and patterns included."""
        return self.run(self.sites(weights=True))


def bench(name: str, stack: str = "") -> Bench:
    return Bench(name, stack)


def result_of(output: Any) -> Tensor:
    """Everything that a model returns, in one vector: pads of -inf and infinities left out."""
    found: list[Tensor] = []
    for key in ("logits", "logits_per_text", "text_embeds", "image_embeds", "last_hidden_state", "pooler_output"):
        value = output.get(key)
        if isinstance(value, Tensor):
            found.append(value.flatten())
    assert found
    return torch.cat(found)


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- invariants ----------------------------------------------------------------------------------------------------------------


def check_reading_changes_nothing(case: Bench) -> None:
    with torch.no_grad():
        plain = case.model.module(**case.inputs)
    read = case.run(case.sites())
    assert torch.equal(result_of(plain), result_of(read.output))
    close(result_of(plain), result_of(case.whole.output), 1e-4)
    assert not any(len(m._forward_pre_hooks) for m in case.model.module.modules())


def check_heads(case: Bench) -> None:
    """head_out adds up to out, softmax(scores) is pattern, pattern times v is z, z projected is head_out."""
    trace = case.whole
    for i in range(case.depth):
        for kind in HEADS:
            if not case.offers(f"{kind}.out", i):
                continue

            def get(name: str, i: int = i, kind: str = kind) -> Tensor:
                return trace[case.site(f"{kind}.{name}", i)]

            projection = case.model.atlas.place(case.site(f"{kind}.head_out", i)).module
            bias = 0 if projection.bias is None else projection.bias
            close(get("head_out").sum(dim=2) + bias, get("out"))
            close(projection(get("z").flatten(2)).detach(), get("out"))
            if not case.offers(f"{kind}.scores", i):
                continue
            close(get("scores").softmax(dim=-1), get("pattern"))
            values = get("v").repeat_interleave(get("q").shape[2] // get("v").shape[2], dim=2)
            close(torch.einsum("bhqk,bkhd->bqhd", get("pattern"), values), get("z"))


def check_mlp(case: Bench) -> None:
    trace = case.whole
    for i in range(case.depth):
        if not case.offers("mlp.post", i):
            continue
        down = case.model.atlas.place(case.site("mlp.post", i)).module
        close(down(trace[case.site("mlp.post", i)]), trace[case.site("mlp.out", i)])


def check_residual(case: Bench, trace: Trace | None = None) -> None:
    """The stream of the layers, by the rule that the stack states."""
    trace = trace or case.whole
    for i in range(case.depth):

        def get(name: str, i: int = i) -> Tensor:
            return trace[case.site(name, i)]

        pre = get("resid_pre")
        attended = sum(get(name) for name in ("attn.add", "cross.add", "ssm.add") if case.offers(name, i))
        if case.layout.residual == "normed":
            first, second = (find_module(case.layer(i), path) for path in case.layout.norms)
            close(first(pre) + attended, get("resid_mid"))
            close(second(get("resid_mid")) + get("mlp.add"), get("resid_post"))
        elif case.layout.residual == "post-norm":
            inner, outer = (find_module(case.layer(i), path) for path in case.layout.norms)
            close(inner(pre + attended), get("resid_mid"))
            if case.offers("mlp.add", i):
                close(outer(get("resid_mid") + get("mlp.add")), get("resid_post"))
        else:
            if case.offers("resid_mid", i):
                close(pre + attended, get("resid_mid"))
            close(pre + attended + (get("mlp.add") if case.offers("mlp.add", i) else 0), get("resid_post"))


def check_noop(case: Bench) -> None:
    """An edit that changes nothing changes no bit."""
    same = [site.apply(lambda v: v) for site in case.sites()]
    assert torch.equal(result_of(case.run(edits=same).output), result_of(case.run().output))
    weights = [s for s in case.sites(weights=True) if s.name.endswith(WEIGHTS)]
    if weights:
        edited = case.run(edits=[s.apply(lambda v: v) for s in weights])
        assert torch.equal(result_of(edited.output), result_of(case.run(weights).output))


def noise_like(value: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=value.dtype)


def check_writing(case: Bench, layer: int = 1) -> None:
    """What is written is what is read, and it flows on: it changes what comes after it."""
    for number, site in enumerate(case.sites(layer, weights=True)):
        old = case.whole[site]
        new = old.clamp(min=-1e4) + 0.5 * noise_like(old, number)  # an edit writes no -inf
        if site.name.endswith("pattern"):
            new = new.softmax(dim=-1)
        after = case.site("resid_post", layer) if site.layers is not None else case.site("resid_post", 0)
        if site.name in ("final_norm", "projector", "image_tokens") or site.name == "resid_post":
            after = None
        trace = case.run([site, *([after] if after else [])], [site.set(new)])
        assert torch.equal(trace[site], new), site
        if after is not None:
            assert (trace[after] - case.whole[after]).abs().max() > 1e-4, site


def check_stream_is_one(case: Bench) -> None:
    """Writing the stream moves what reads it and what is added to it alike: the residual rule still holds."""
    names = ("resid_pre", "resid_mid", "attn.add", "mlp.add", "ssm.add", "attn.out", "mlp.out", "ssm.out", "cross.add")
    names = [n for n in names if case.offers(n, 1)]
    for number, name in enumerate(names):
        site = case.site(name, 1)
        change = site.set(case.whole[site] + noise_like(case.whole[site], number))
        trace = case.run(case.sites(weights=True), [change])
        if name == "resid_mid":  # what is written no longer comes from the attention
            rest = trace[case.site("mlp.add", 1)] if case.offers("mlp.add", 1) else None
            if rest is not None:
                stream = (
                    find_module(case.layer(1), case.layout.norms[1])(trace[site])
                    if case.layout.residual == "normed"
                    else trace[site]
                )
                total = stream + rest
                outer = find_module(case.layer(1), case.layout.norms[1]) if case.layout.residual == "post-norm" else lambda x: x
                close(outer(total), trace[case.site("resid_post", 1)])
                assert (rest - case.whole[case.site("mlp.add", 1)]).abs().max() > 1e-3
        else:
            check_residual(case, trace)


def check_head_knockout(case: Bench, layer: int = 1) -> None:
    """Removing a head's share, removing its z, and zeroing its columns of the projection by hand are one and the same."""
    for kind in HEADS:
        if not case.offers(f"{kind}.z", layer):
            continue
        share = case.run(edits=[case.site(f"{kind}.head_out", layer)(head=1).ablate("zero")])
        mix = case.run(edits=[case.site(f"{kind}.z", layer)(head=1).ablate("zero")])
        projection = case.model.atlas.place(case.site(f"{kind}.head_out", layer)).module
        # [in, out]; GPT-2's Conv1D keeps its weight so
        inward = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
        wide = inward.shape[0] // case.whole[case.site(f"{kind}.z", layer)].shape[2]
        kept = projection.weight.detach().clone()
        with torch.no_grad():
            inward[wide : 2 * wide] = 0
            by_hand = case.model.module(**case.inputs)
            projection.weight.copy_(kept)
        close(result_of(share.output), result_of(by_hand), 1e-4)
        close(result_of(mix.output), result_of(by_hand), 1e-4)


def check_plain_hooks(case: Bench, paths: dict[str, str]) -> None:
    """Our values are those of torch's own hooks. `paths` maps a site's name to a module whose output it is, below the layer."""
    seen: dict[tuple[str, int], Tensor] = {}
    handles = []
    for i in range(case.depth):
        for name, path in paths.items():
            module = find_module(case.layer(i), path)
            assert module is not None, path

            def hook(module: nn.Module, args: Any, output: Any, key: tuple[str, int] = (name, i)) -> None:
                seen[key] = (output[0] if isinstance(output, tuple) else output).detach().clone()

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        case.model.module(**case.inputs)
    for handle in handles:
        handle.remove()
    trace = case.run([case.site(name, i) for name, i in seen])
    for (name, i), value in seen.items():
        ours = trace[case.site(name, i)]
        assert torch.equal(ours, value.reshape(ours.shape)), (name, i)


def check_gradients(case: Bench, layer: int = 1, exact: bool = True) -> None:
    """The gradient at a site is the slope of finite differences along a random direction, in float64.

    Not `exact`: the model computes its norms or rotations in float32 whatever it is given, so the steps are wide.
    """
    size, tolerance = (1e-5, 1e-5) if exact else (3e-3, 3e-2)
    module = copy.deepcopy(case.model.module).double()
    model = wrap(module)
    inputs = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in case.inputs.items()}
    with torch.no_grad():
        weight = noise_like(result_of(module(**inputs)), 1)

    def metric(trace: Trace) -> Tensor:
        return (result_of(trace.output) * weight).sum()

    sites = [s for s in case.sites(layer, weights=True) if s.name not in ("final_norm", "projector", "image_tokens")]
    sites += [s for s in case.sites(layer) if s.name in ("projector", "image_tokens")]
    for group in ([s for s in sites if not s.name.endswith(WEIGHTS)], [s for s in sites if s.name.endswith(WEIGHTS)]):
        if not group:
            continue
        explicit = [s for s in sites if s.name.endswith(WEIGHTS)] if group[0].name.endswith(WEIGHTS) else []
        trace = model.run(inputs, read=group, grad_of=metric)
        with torch.no_grad():
            for number, site in enumerate(group):
                assert trace.grad[site].abs().max() > 1e-6, site
                direction = noise_like(trace[site], number)
                direction = direction.masked_fill(~trace[site].isfinite(), 0.0)
                direction /= direction.norm()
                sides = [
                    metric(model.run(inputs, read=explicit, edits=[site.add(step * direction)], until="end"))
                    for step in (size, -size)
                ]
                slope = (sides[0] - sides[1]) / (2 * size)
                found = (trace.grad[site].masked_fill(~trace[site].isfinite(), 0.0) * direction).sum()
                assert torch.isclose(found, slope, rtol=tolerance, atol=tolerance), (site, found, slope)


def check_bfloat16(case: Bench) -> None:
    model = wrap(copy.deepcopy(case.model.module).to(torch.bfloat16))
    inputs = {k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in case.inputs.items()}
    with torch.no_grad():
        plain = result_of(model.module(**inputs))
        trace = model.run(inputs, read=case.sites(), edits=[s.apply(lambda v: v) for s in case.sites()], until="end")
        assert torch.equal(plain, result_of(trace.output))
        explicit = model.run(inputs, read=case.sites(weights=True), until="end")
    for site, value in explicit.read.items():
        assert value.dtype == torch.bfloat16, site
        assert not value.isnan().any(), site


def check_padding(case: Bench, side: str, sites: list[Site], tolerance: float = 5e-5) -> None:
    """A row of a padded batch is what it is alone: values at real tokens."""
    batch = CASES[case.name].batch
    assert batch is not None
    padded, alone = batch(side)  # type: ignore[arg-type]
    if side == "left" and case.model.map.positions == "given":  # as `Model.prepare` does: rotated q and k depend on it
        padded = {**padded, "position_ids": (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    with torch.no_grad():
        together = case.model.run(padded, read=sites, until="end")
        for i, row in enumerate(alone):
            single = case.model.run(row, read=sites, until="end")
            mine = together.row(i)
            for site in sites:
                a, b = mine[site], single[site]
                close(a.masked_fill(~a.isfinite(), 0.0), b.masked_fill(~b.isfinite(), 0.0), tolerance)


def every_site(case: Bench) -> list[Site]:
    """All sites of the stack's layers, for padding checks."""
    return [s for s in case.sites(weights=True) if s.layers is not None]
