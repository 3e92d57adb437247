"""Maps of decoders, mixtures of experts and state-space hybrids: what is read, against plain torch."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN

from conformance.zoo import CASES
from mainspring.errors import SiteRefused
from mainspring.models.load import wrap
from mainspring.sites import at
from mainspring.trace import Trace
from models import map_algebra as algebra
from models.decoder_cases import CHECKS, NAMES, bench, plain, value, with_attention
from models.map_algebra import Bench, close, noise_like, result_of


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


@pytest.mark.parametrize("check", CHECKS)
def test_algebra(case: Bench, check: str):
    getattr(algebra, f"check_{check}")(case)


def test_values_are_those_of_plain_hooks(case: Bench):
    paths = CASES[case.name].facts["paths"]
    wanted: dict[str, tuple[str, str]] = {"embed": (f"{paths['layers']}.0", "input")}
    if paths["final_norm"] and (case.name != "opt-350m"):
        wanted["final_norm"] = (paths["final_norm"], "output")
    for i in range(case.depth):
        layer = f"{paths['layers']}.{i}"
        wanted |= {f"layers.{i}.resid_pre": (layer, "input"), f"layers.{i}.resid_post": (layer, "output")}
        if case.offers("attn.out", i):
            wanted |= {f"layers.{i}.attn.out": (f"{layer}.{paths['attn_out']}", "output")}
        if case.offers("mlp.post", i):
            wanted |= {f"layers.{i}.mlp.out": (f"{layer}.{paths['mlp_out']}", "output")}
            wanted |= {f"layers.{i}.mlp.post": (f"{layer}.{paths['mlp_out']}", "input")}
        if case.offers("ssm.out", i):
            wanted |= {f"layers.{i}.ssm.out": (f"{layer}.{paths['mixer_out']}", "output")}
    expected = plain(case.model.module, case.inputs, wanted)
    trace = case.run([at[name] for name in wanted])
    for name in wanted:
        assert torch.equal(trace[name], expected[name].reshape(trace[name].shape)), name
    assert torch.equal(trace.logits, expected["logits"])


def eager(name: str) -> nn.Module:
    module = CASES[name].build()
    if CASES[name].facts["registry"]:
        module.set_attn_implementation("eager")  # type: ignore[operator]
    else:
        module.config._attn_implementation = "eager"  # type: ignore[union-attr]
    return module


@pytest.mark.parametrize("name", [n for n in NAMES if CASES[n].kind != "state-space"])
def test_pattern_is_what_transformers_returns(name: str):
    module = eager(name)
    model, inputs = wrap(module), CASES[name].inputs()
    with torch.no_grad():
        expected = [x for x in module(**inputs, output_attentions=True).attentions if x is not None]
    layers = [i for i in range(model.n_layers) if model.can(at.layers[i].attn.pattern)]
    trace = model.run(inputs, read=[at.layers[i].attn.pattern for i in layers], until="end")
    assert len(expected) == len(layers)
    for i, pattern in zip(layers, expected, strict=True):
        close(trace[at.layers[i].attn.pattern], pattern)
    assert (trace[at.layers[layers[0]].attn.pattern].sum(dim=-1) - 1).abs().max() < 1e-5


def test_scores_are_products_of_queries_and_keys(case: Bench):
    """Scores move with a query by its keys, scaled (before any soft cap), and by nothing where attention is forbidden."""
    facts = CASES[case.name].facts
    for i in with_attention(case)[:2]:
        q, k, scores = (case.site(f"attn.{n}", i) for n in ("q", "k", "scores"))
        step = 1e-2 * noise_like(case.whole[q], i)
        moved = case.run([scores], [q.add(step)])[scores] - case.whole[scores]
        keys = case.whole[k].repeat_interleave(step.shape[2] // case.whole[k].shape[2], dim=2)
        scale = facts["attn_scale"][i] if isinstance(facts["attn_scale"], tuple) else facts["attn_scale"]
        expected = torch.einsum("bqhd,bkhd->bhqk", step, keys) * scale
        if (cap := facts["attn_softcap"]) is not None:
            expected = expected * (1 - (case.whole[scores] / cap) ** 2)
        allowed = case.whole[scores].isfinite()
        assert allowed.float().mean() < 0.6
        torch.testing.assert_close(moved[allowed], expected[allowed], rtol=2e-2, atol=2e-4)


def test_projections_hold_heads(case: Bench):
    """At position 0 nothing is rotated: a query is its projection, but for norms and constants; values always are."""
    facts = CASES[case.name].facts
    for i in with_attention(case):
        projected = {part: value(case, f"attn.{part}_proj", i) for part in "qkv"}
        if limit := facts.get("clip_qkv"):
            projected = {part: x.clamp(-limit, limit) for part, x in projected.items()}
        assert torch.equal(projected["v"], value(case, "attn.v", i))
        if not facts.get("qk_norm"):
            key = facts.get("multipliers", {}).get("key_multiplier", 1.0)
            close(projected["q"][:, 0] * facts.get("q_scale", 1.0), value(case, "attn.q", i)[:, 0])
            close(projected["k"][:, 0] * key, value(case, "attn.k", i)[:, 0])


def test_neurons(case: Bench):
    """post is act(pre) * up, or act(pre)."""
    names = ("hidden_act", "activation_function", "hidden_activation", "activation")
    named = next((found for n in names if (found := getattr(case.model.config, n, None))), "gelu")
    act = ACT2FN["gelu_pytorch_tanh" if case.name.startswith("bloom") else named]
    for i in range(case.depth):
        if not case.offers("mlp.pre", i):
            continue
        post = act(value(case, "mlp.pre", i)) * (value(case, "mlp.up", i) if case.offers("mlp.up", i) else 1)
        close(post, value(case, "mlp.post", i), 1e-4)


# ---- gradients, padding, dtypes ----------------------------------------------------------------------------------------------


class Double(TorchFunctionMode):
    """Models compute norms, rotations and softmax in float32 whatever they are given; here in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        up = {torch.float32: torch.float64}
        args = [up.get(x, x) if isinstance(x, torch.dtype) else x for x in args]
        return func(*args, **{k: up.get(v, v) if isinstance(v, torch.dtype) else v for k, v in (kwargs or {}).items()})


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str):
    case = Bench(name)
    if hasattr(case.model.config, "_experts_implementation"):
        case.model.config._experts_implementation = "eager"  # grouped products know no float64
    with Double():
        algebra.check_gradients(case, layer=1)
        if CASES[name].kind == "hybrid":
            algebra.check_gradients(case, layer=0)


def test_gradients_through_an_edit_of_the_stream():
    """resid_mid is written in place, over a tensor that the edit's own backward pass needs."""
    case = bench("llama")
    model, site = wrap(copy.deepcopy(case.model.module).double()), case.site("resid_mid", 1)
    square = site.apply(lambda v: v**2)
    pre = case.site("resid_pre", 1)
    direction = noise_like(case.whole[pre], 3).double()

    def metric(trace: Trace) -> Tensor:
        return trace.logits[..., :5].sum()

    with Double():
        trace = model.run(case.inputs, read=[pre], edits=[square], grad_of=metric)
        ends = [metric(model.run(case.inputs, edits=[pre.add(s * direction), square])) for s in (1e-6, -1e-6)]
    torch.testing.assert_close((trace.grad[pre] * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-4)


ONLY_RELATIVE = {"mpt": ("attn.scores",)}
"""MPT's position bias counts keys from the end of the padded text: scores shift by a constant per head, patterns do not."""


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_invisible(case: Bench, side: str):
    spec = CASES[case.name]
    if side == "left" and spec.facts.get("left_padding_exact") is False:
        pytest.skip("transformers' own model is not exact here")
    assert spec.batch is not None
    padded, alone = spec.batch(side)  # type: ignore[arg-type]
    if "position_ids" in case.model._names and case.model.map.positions == "given":
        padded = {**padded, "position_ids": (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    sites = [s for s in algebra.every_site(case) if s.name not in ONLY_RELATIVE.get(case.name, ())]
    together = case.model.run(padded, read=sites, until="end")
    for i, row in enumerate(alone):
        single = case.model.run(row, read=sites, until="end")
        mine = together.row(i)
        for site in sites:
            a, b = mine[site], single[site]
            close(a.masked_fill(~a.isfinite(), 0.0), b.masked_fill(~b.isfinite(), 0.0), 1e-4)


def test_bfloat16(case: Bench):
    model = wrap(copy.deepcopy(case.model.module).to(torch.bfloat16))
    with torch.no_grad():
        expected = result_of(model.module(**case.inputs))
    same = model.run(case.inputs, read=case.sites(), edits=[s.apply(lambda v: v) for s in case.sites()], until="end")
    assert torch.equal(expected, result_of(same.output))
    explicit = model.run(case.inputs, read=case.sites(weights=True), until="end")
    for site, found in explicit.read.items():
        assert found.is_floating_point(), site
        assert not found.isnan().any(), site
    for i in with_attention(case)[:1]:  # a bfloat16 value is taken where the model computes in float32
        for name in ("q", "k", "v", "scores", "pattern"):
            site = case.site(f"attn.{name}", i)
            new = explicit[site].bfloat16()
            model.run(case.inputs, edits=[site.set(new.clamp(min=-1e4))])


# ---- what is refused ---------------------------------------------------------------------------------------------------------


def refusals() -> Iterator[tuple[str, str, str]]:
    yield from (
        (n, "layers.1.resid_mid", "parallel")
        for n in ("gpt-neox", "gptj", "falcon-old", "falcon-new", "cohere2", "stablelm-parallel")
    )
    yield from ((n, "layers.1.mlp.up", "no gate") for n in ("gpt2", "gpt-neox", "opt", "bloom", "mpt", "starcoder2"))
    yield "mamba", "layers.0.attn.pattern", "state-space"
    yield "mamba2", "layers.0.mlp.post", "no MLP"
    yield "mamba", "layers.0.resid_mid", "no MLP"
    yield "bamba", "layers.0.attn.q", "state-space"
    yield "bamba", "layers.1.ssm.y", "no state-space mixer"
    yield "mixtral", "layers.0.mlp.pre", "experts"
    yield "llama", "layers.0.ssm.y", "no state-space mixer"
    yield "opt-350m", "final_norm", "no final norm"


@pytest.mark.parametrize(("name", "site", "reason"), list(refusals()))
def test_refusals_say_why(name: str, site: str, reason: str):
    model = bench(name).model
    assert reason in model.can(site).reason
    with pytest.raises(SiteRefused, match=reason):
        model.run(bench(name).inputs, read=site)
