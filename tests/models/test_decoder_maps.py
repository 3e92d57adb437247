"""Maps of decoders, mixtures of experts and state-space hybrids, against plain torch."""

import copy
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from conformance.zoo import CASES
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.activations import ACT2FN

from mainspring.errors import SiteRefused
from mainspring.models.load import wrap
from mainspring.models.maps import find_module
from mainspring.sites import Site, at
from mainspring.trace import Trace
from models import map_algebra as algebra
from models.map_algebra import Bench, close, noise_like, result_of

NAMES = [n for n, c in CASES.items() if c.kind in ("decoder", "state-space", "hybrid") and not n.startswith("unknown-")]
INSIDE = ["gptj", "gpt-neo", "bloom", "mpt", "falcon-old", "falcon-new", "falcon-alibi"]
"""Families that compute attention in their own modules."""
CHECKS = ["reading_changes_nothing", "heads", "mlp", "residual", "noop", "writing", "stream_is_one", "head_knockout"]


@cache
def bench(name: str) -> Bench:
    torch.set_num_threads(1)
    return Bench(name)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def with_attention(case: Bench) -> list[int]:
    return [i for i in range(case.depth) if case.offers("attn.q", i)]


def value(case: Bench, name: str, layer: int) -> Tensor:
    return case.whole[case.site(name, layer)]


def mixed(case: Bench, layer: int, pattern: Tensor, values: Tensor) -> Tensor:
    """Values weighted by a pattern, every key-value head serving its group of query heads."""
    group = value(case, "attn.z", layer).shape[2] // values.shape[2]
    return torch.einsum("bhqk,bkhd->bqhd", pattern, values.repeat_interleave(group, dim=2))


@pytest.mark.parametrize("check", CHECKS)
def test_algebra(case: Bench, check: str):
    getattr(algebra, f"check_{check}")(case)


# ---- values are those of plain torch --------------------------------------------------------------------------------------------


def plain(module: nn.Module, inputs: dict[str, Any], paths: dict[str, tuple[str, str]]) -> dict[str, Tensor]:
    """A forward with torch's own hooks: by name, what the module at a path was given or returned."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, (path, end) in paths.items():
        target = find_module(module, path)
        assert target is not None, path

        def before(m: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            seen[name] = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)).clone()

        def after(m: nn.Module, args: Any, output: Any, name: str = name) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

        given = end == "input"
        handles.append(
            target.register_forward_pre_hook(before, with_kwargs=True) if given else target.register_forward_hook(after)
        )
    with torch.no_grad():
        seen["logits"] = module(**inputs).logits
    for handle in handles:
        handle.remove()
    return seen


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


# ---- writes are those of plain torch --------------------------------------------------------------------------------------------


def replaced(module: nn.Module, inputs: dict[str, Any], path: str, end: str, value: Tensor) -> Tensor:
    """Logits of a forward in which torch's own hook exchanges what a module is given or returns."""
    target = find_module(module, path)
    assert target is not None

    def before(m: nn.Module, args: Any, kwargs: Any) -> Any:
        return (value.reshape(args[0].shape).clone(), *args[1:]), kwargs  # models may write into what they are given

    def after(m: nn.Module, args: Any, output: Any) -> Any:
        return (value.clone(), *output[1:]) if isinstance(output, tuple) else value.reshape(output.shape).clone()

    given = end == "input"
    handle = target.register_forward_pre_hook(before, with_kwargs=True) if given else target.register_forward_hook(after)
    with torch.no_grad():
        logits = module(**inputs).logits
    handle.remove()
    return logits


def test_writes_are_those_of_plain_hooks(case: Bench):
    paths, i = CASES[case.name].facts["paths"], 1
    layer = f"{paths['layers']}.{i}"
    spots = {"resid_pre": (layer, "input"), "resid_post": (layer, "output")}
    if case.offers("attn.out", i):
        spots |= {"attn.out": (f"{layer}.{paths['attn_out']}", "output"), "attn.z": (f"{layer}.{paths['attn_out']}", "input")}
    if case.offers("mlp.post", i):
        spots |= {"mlp.out": (f"{layer}.{paths['mlp_out']}", "output"), "mlp.post": (f"{layer}.{paths['mlp_out']}", "input")}
    if case.offers("ssm.out", i):
        spots |= {"ssm.out": (f"{layer}.{paths['mixer_out']}", "output"), "ssm.y": (f"{layer}.{paths['mixer_out']}", "input")}
    for number, (name, (path, end)) in enumerate(spots.items()):
        site = case.site(name, i)
        new = case.whole[site] + noise_like(case.whole[site], number)
        flat = new.flatten(2)
        expected = replaced(case.model.module, case.inputs, path, end, flat)
        assert torch.equal(case.run(edits=[site.set(new)]).logits, expected), name
        assert not torch.equal(expected, case.run().logits)


def test_attention_flows_on(case: Bench):
    """Written values mix by the pattern; a written pattern mixes the values; written scores are a written pattern."""
    for i in with_attention(case)[:1]:
        v, z, scores, pattern = (case.site(f"attn.{n}", i) for n in ("v", "z", "scores", "pattern"))
        values = noise_like(case.whole[v], 1)
        close(case.run([z], [v.set(values)])[z], mixed(case, i, case.whole[pattern], values))
        weights = noise_like(case.whole[pattern], 2).softmax(dim=-1)
        close(case.run([z], [pattern.set(weights)])[z], mixed(case, i, weights, case.whole[v]))
        by_scores = case.run([pattern], [scores.set(weights.log())])
        close(by_scores[pattern], weights)
        close(by_scores.logits, case.run(edits=[pattern.set(weights)]).logits, 1e-4)


@pytest.mark.parametrize("name", [*INSIDE, "llama", "gemma2"])
def test_masked_scores_leave_the_rest(name: str):
    case = bench(name)
    scores, pattern, z = (case.site(f"attn.{n}", 1) for n in ("scores", "pattern", "z"))
    trace = case.run([pattern], [scores(key=0, query=slice(3, None)).mask()])
    kept = case.whole[pattern].clone()
    kept[:, :, 3:, 0] = 0
    close(trace[pattern], kept / kept.sum(dim=-1, keepdim=True))
    nothing = case.run([pattern, z], [scores(head=0).mask()])  # a query that may look at nothing gets nothing
    assert nothing[pattern][:, 0].abs().max() == 0
    assert nothing[z][:, :, 0].abs().max() == 0


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "jamba"])
def test_router_logits_choose_the_experts(name: str):
    case = bench(name)
    path = CASES[name].facts["paths"]
    i = CASES[name].facts["moe_layers"][-1]
    block = case.layer(i).feed_forward if name == "jamba" else case.layer(i).mlp
    router = block.router if name == "jamba" else block.gate
    site = case.site("mlp.router", i)
    logits = noise_like(case.whole[site], 1)
    renormalise = name != "jamba"

    def choose(module: nn.Module, args: Any, output: Any) -> Any:
        weights, chosen = logits.flatten(0, 1).softmax(dim=-1).topk(2, dim=-1)
        return logits, weights / weights.sum(dim=-1, keepdim=True) if renormalise else weights, chosen

    handle = router.register_forward_hook(choose)
    with torch.no_grad():
        expected = case.model.module(**case.inputs).logits
    handle.remove()
    close(case.run(edits=[site.set(logits)]).logits, expected)
    given = plain(
        case.model.module, case.inputs, {"x": (f"{path['layers']}.{i}.{'feed_forward' if name == 'jamba' else 'mlp'}", "input")}
    )
    close(case.whole[site], nn.functional.linear(given["x"], router.weight).detach())
    with pytest.raises(SiteRefused, match="experts"):
        case.run([case.site("mlp.post", i)])


def test_a_dense_layer_among_mixtures_has_neurons():
    case = bench("qwen3-moe")
    assert [case.offers("mlp.post", i) for i in range(3)] == [False, True, False]
    assert [case.offers("mlp.router", i) for i in range(3)] == [True, False, True]


# ---- gradients, padding, dtypes, threads ----------------------------------------------------------------------------------------


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
    for site, value in explicit.read.items():
        assert value.is_floating_point() and not value.isnan().any(), site
    for i in with_attention(case)[:1]:  # a bfloat16 value is taken where the model computes in float32
        for name in ("q", "k", "v", "scores", "pattern"):
            site = case.site(f"attn.{name}", i)
            new = explicit[site].bfloat16()
            model.run(case.inputs, edits=[site.set(new.clamp(min=-1e4))])


@pytest.mark.parametrize("name", INSIDE)
def test_threads_do_not_see_each_other(name: str):
    case = bench(name)
    edit = case.site("attn.scores", 1)(head=0, key=0).mask()
    edited, untouched = case.run(edits=[edit]).logits, case.run().logits
    assert not torch.equal(edited, untouched)
    wrong: list[str] = []

    def repeat(run: Callable[[], Tensor], expected: Tensor) -> None:
        for _ in range(10):
            if not torch.equal(run(), expected):
                wrong.append(name)

    with torch.no_grad():
        jobs = [(lambda: case.run(edits=[edit]).logits, edited), (lambda: case.model.module(**case.inputs).logits, untouched)]
        threads = [threading.Thread(target=repeat, args=job) for job in jobs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


def test_a_run_inside_an_edit_is_a_run_of_its_own():
    case = bench("gptj")
    scores, plain_logits = case.site("attn.scores", 1), case.run().logits
    seen: list[Tensor] = []

    def peek(value: Tensor) -> Tensor:
        seen.append(case.run([scores]).logits)
        return value * 2

    case.run(edits=[case.site("attn.z", 1).apply(peek), scores(head=0, key=0).mask()])
    assert torch.equal(seen[0], plain_logits)


@pytest.mark.parametrize(
    "name", ["gptj", "gpt-neo", "bloom", "mpt", "falcon-old", "falcon-new", "mamba", "mamba2", "jamba", "opt"]
)
def test_generation_keeps_sites(name: str):
    """Values of a cached generation are those of one run over the whole text."""
    case = bench(name)
    layer = 1
    wanted = [
        "attn.q",
        "attn.k",
        "attn.v",
        "attn.z",
        "ssm.B",
        "ssm.conv",
        "ssm.dt",
        "ssm.y",
        "mlp.post",
        "resid_post",
        "resid_mid",
    ]
    sites = [case.site(n, layer) for n in wanted if case.offers(n, layer)]
    trace = case.model.generate(case.inputs, max_new_tokens=4, read=sites)
    whole = case.model.run({"input_ids": trace.tokens}, read=sites, until="end")
    for site in sites:
        n = min(trace[site].shape[1], whole[site].shape[1])
        assert n >= case.inputs["input_ids"].shape[1] + 3
        close(trace[site][:, :n], whole[site][:, :n], 1e-3)


# ---- what is refused ------------------------------------------------------------------------------------------------------------


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


def test_the_same_tensor_is_visited_in_the_order_of_the_vocabulary():
    """Reads of a sum see edits of its parts, whichever is named first."""
    case = bench("granite")
    out, add, share = (case.site(f"attn.{n}", 1) for n in ("out", "add", "head_out"))
    for reads in ([add, out], [out, add]):
        trace = case.run(reads, [share(head=0).ablate("zero")])
        close(trace[add], trace[out] * case.model.config.residual_multiplier)
        close(case.whole[out] - case.whole[share][:, :, 0], trace[out])


def test_post_norm_streams_are_outputs_of_norms():
    case = bench("opt-350m")
    assert case.layout.residual == "post-norm"
    site = case.site("resid_mid", 1)
    new = noise_like(case.whole[site], 1)
    norm = Site("resid_post", 1)
    trace = case.run([norm, case.site("mlp.add", 1)], [site.set(new)])
    close(case.layer(1).final_layer_norm(new + trace[case.site("mlp.add", 1)]).detach(), trace[norm])
