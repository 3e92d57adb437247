"""`model.check()` holds for every architecture, and names the invariant that a wrong map breaks."""

from dataclasses import replace

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from mainspring.engine.forms import Heads, HeadsFirst
from mainspring.errors import UnmappedModel
from mainspring.models.families import maps
from mainspring.models.maps import Dims, Map, Stack, Tap, fused_qkv, into, outof, scaled, split_heads

RESIDUAL = "the residual adds up"
HEADS = "attn.out is the sum of head_out and the bias"
SOFTMAX = "softmax(scores) is the pattern"
MIX = "pattern @ v is z"
DOWN = "mlp.out is the down projection of mlp.post"
NORM = "final_norm normalises the last resid_post"
HEAD = "logits come from final_norm"
READ = "every site can be read, in its shape"
HOOK = "a read equals a plain forward hook"
NO_OP = "a no-op edit changes no bit"
WRITE = "writing x then reading gives x, and changes what follows"
PROJECTIONS = "q_proj, k_proj and v_proj feed their own heads"
GRADIENT = "the gradient equals finite differences"
EXPLICIT = "the explicit softmax equals the fused kernel"
LEFT, RIGHT = "batched equals alone, padded on the left", "batched equals alone, padded on the right"
GENERATE = "generation equals the model's own"

ALWAYS = {READ, RESIDUAL, HOOK, NO_OP, WRITE, GRADIENT}


def state(module):
    """All that a check must leave as it was: bits, hooks, modes, the kernel in use, and plain attributes."""
    bits = {n: t.detach().clone().numpy().tobytes() for n, t in [*module.named_parameters(), *module.named_buffers()]}
    hooks = [n for n, m in module.named_modules() for k in ("_forward_hooks", "_forward_pre_hooks") if mine(getattr(m, k))]
    plain = {n: {k: id(v) for k, v in vars(m).items() if not k.startswith("_")} for n, m in module.named_modules()}
    return bits, hooks, [m.training for m in module.modules()], module.config._attn_implementation, plain


def mine(hooks):
    """transformers keeps hooks of its own on a model that was once asked for hidden states."""
    return [h for h in hooks.values() if "transformers" not in getattr(h, "__module__", "")]


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_map_is_proven(name):
    case = CASES[name]
    module = case.build()
    model, before, random = ms.wrap(module), state(module), torch.get_rng_state()
    report = model.check(case.inputs() if case.kind == "vision-language" else None)
    assert report.ok, report.failed
    assert state(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    proven = {row.invariant for row in report if row.verdict == "ok"}
    assert proven >= ALWAYS - ({RESIDUAL} if name == "bert-chunked" else set())  # whose MLP no module sees whole
    if case.facts["heads"] is not None:
        whole = name not in ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
        assert proven >= {HEADS, SOFTMAX, MIX, EXPLICIT}
        assert {row.verdict for row in report.of(MIX)} <= {"ok", "refused"}
        assert whole or report.of(MIX)[0].verdict == "ok"
    if case.generates:
        assert proven >= {NORM, HEAD, GENERATE} or case.facts.get("post_norm")
    if case.facts.get("left_padding_exact") is False:
        (left,) = report.of(LEFT)
        assert left.verdict == "not applicable"
        assert "bare model itself" in left.note
    elif case.batch is not None and name != "paligemma":
        assert proven >= {LEFT, RIGHT}
    if case.facts.get("parallel") is False and case.facts.get("moe_layers"):
        experts = [row for row in report.of(DOWN) if row.layer.isdigit() and int(row.layer) in case.facts["moe_layers"]]
        assert {row.verdict for row in experts} == {"refused"}


HALF = ["gpt2", "llama", "gemma2", "falcon-new", "granite", "qwen3-moe", "bert", "t5", "mamba", "falcon-h1", "clip"]


@pytest.mark.parametrize("name", HALF)
def test_maps_are_proven_in_half_precision(name):
    report = ms.wrap(CASES[name].build().to(torch.bfloat16)).check()
    assert report.ok, report.failed
    assert [row.verdict for row in report.of(GRADIENT)] == ["not applicable"]


def test_a_check_is_deterministic():
    model = ms.wrap(CASES["llama"].build())
    assert model.check() == model.check()


# ---- wrong maps ----------------------------------------------------------------------------------------------------------------


def poisoned(module, family, **changes):
    """A family's map with entries of its layers exchanged; `stack_` changes the stack itself, `map_` the map."""
    layout = maps()[family]
    stack = layout.stack if isinstance(layout.stack, Stack) else layout.stack(module.config)
    fields = {k.removeprefix("stack_"): v for k, v in changes.items() if k.startswith("stack_")}
    stack = replace(stack, **fields, tables=(*stack.tables, changes.get("entries", {})))
    return replace(layout, stack=stack, **{k.removeprefix("map_"): v for k, v in changes.items() if k.startswith("map_")})


def heads(count):
    return lambda dims, module, config: Heads(count)


LLAMA = ("llama", "llama")
POISONS = {
    "resid_pre and resid_post exchanged": (*LLAMA, {"entries": {"resid_pre": outof(""), "resid_post": into("")}}, {RESIDUAL}),
    "resid_mid before attention": (*LLAMA, {"entries": {"resid_mid": into("input_layernorm", shared=True)}}, {RESIDUAL}),
    "attn.add is attn.out despite a norm after it": ("gemma2", "gemma2", {"entries": {"attn.add": "attn.out"}}, {RESIDUAL}),
    "mlp.add is mlp.out despite a residual factor": ("granite", "granite", {"entries": {"mlp.add": "mlp.out"}}, {RESIDUAL}),
    "attn.add scaled by another number": (
        "granite", "granite", {"entries": {"attn.add": outof("self_attn", form=scaled("attention_multiplier"))}}, {RESIDUAL},
    ),
    "q, k and v packed per head, read as thirds": (
        "gpt-neox", "gpt_neox", {"entries": fused_qkv("attention.query_key_value", "thirds")}, {PROJECTIONS},
    ),
    "q, k and v packed as thirds, read per head": (
        "gpt2", "gpt2", {"entries": fused_qkv("attn.c_attn", "per_head")}, {PROJECTIONS},
    ),
    "half the heads": (*LLAMA, {"stack_dims": lambda c, m: Dims(48, 2, 2, 20)}, {READ, MIX}),
    "every head its own keys": (*LLAMA, {"stack_dims": lambda c, m: Dims(48, 4, 4, 20)}, {READ}),
    "twice the heads in z": (*LLAMA, {"entries": {"attn.z": into("self_attn.o_proj", form=heads(8))}}, {READ, MIX}),
    "z before the norm": (*LLAMA, {"entries": {"attn.z": into("self_attn.q_proj", form=split_heads())}}, {MIX}),
    "z is the queries": (*LLAMA, {"entries": {"attn.z": outof("self_attn.q_proj", form=split_heads())}}, {MIX}),
    "mlp.post is mlp.pre": (*LLAMA, {"entries": {"mlp.post": "mlp.pre"}}, {DOWN}),
    "mlp.post is what the gate is given": (*LLAMA, {"entries": {"mlp.post": into("mlp.gate_proj")}}, {DOWN}),
    "mlp.out is what attention gives": (*LLAMA, {"entries": {"mlp.out": outof("self_attn"), "mlp.add": outof("mlp")}}, {DOWN}),
    "scores after the softmax": (*LLAMA, {"entries": {"attn.scores": Tap("self_attn", "attention", "pattern")}}, {SOFTMAX}),
    "v and k exchanged": (
        "gpt2", "gpt2", {"entries": {"attn.v": Tap("attn", "attention", "k", lambda dims, module, config: HeadsFirst())}}, {MIX},
    ),
    "attn.out without the projection": (*LLAMA, {"entries": {"attn.out": into("self_attn.o_proj")}}, {HEADS, READ}),
    "final_norm is the last layer": (*LLAMA, {"stack_final_norm": "layers.2"}, {NORM}),
    "final_norm is a norm inside": (*LLAMA, {"stack_final_norm": "layers.2.input_layernorm"}, {NORM}),
    "a stream that is written to for one reader only": (
        *LLAMA, {"entries": {"resid_mid": into("post_attention_layernorm")}}, {WRITE},
    ),
    "no positions for padded text": ("gpt2", "gpt2", {"map_positions": "own"}, {LEFT}),
    "a post-norm stack told to be pre-norm": (
        "distilbert", "distilbert", {"stack_residual": "pre-norm", "stack_norms": ()}, {RESIDUAL},
    ),
}  # fmt: skip


@pytest.mark.parametrize("poison", POISONS)
def test_a_wrong_map_is_rejected_by_name(poison):
    name, family, changes, expected = POISONS[poison]
    module = CASES[name].build()
    report = ms.wrap(module, layout=poisoned(module, family, **changes)).check()
    failed = {row.invariant for row in report.failed}
    assert not report.ok and failed >= expected, f"{sorted(failed)} does not name {sorted(expected)}"


def test_the_maps_that_were_poisoned_are_themselves_proven():
    """Were they not, their rejection would prove nothing about the poison."""
    for name, family in {(name, family) for name, family, _, _ in POISONS.values()}:
        module = CASES[name].build()
        unharmed = poisoned(module, family)
        assert isinstance(unharmed, Map)
        assert ms.wrap(module, layout=unharmed).check().ok


def test_a_model_in_training_mode_is_told_to_change():
    module = CASES["gpt2"].build().train()
    report = ms.wrap(module).check()
    (row,) = report.of("a run is deterministic")
    assert row.verdict == "failed"
    assert "eval" in row.note
    assert module.training


# ---- the report ----------------------------------------------------------------------------------------------------------------


def test_a_report_prints_as_a_table():
    model = ms.wrap(CASES["qwen3-moe"].build())
    report = model.check()
    text, html = str(report), report._repr_html_()
    for words in (RESIDUAL, "0:3", "refused", "mixture of experts", "invariants hold"):
        assert words in text.replace("\n", " ")
        assert words in html
    assert len(text.splitlines()) < 3 * len(report.rows), "layers that agree share a line"
    assert [row.layer for row in report.of(RESIDUAL)] == ["0", "1", "2"]


def test_a_failing_report_says_what_fails():
    module = CASES["llama"].build()
    report = ms.wrap(module, layout=poisoned(module, "llama", entries={"mlp.post": "mlp.pre"})).check()
    assert f"fail: {DOWN}" in report.headline
    assert {row.layer for row in report.failed} == {"0", "1", "2"}


def test_own_inputs():
    model = ms.wrap(CASES["llama"].build())
    assert model.check([3, 5, 7, 9]).ok
    assert model.check({"input_ids": torch.tensor([[3, 5, 7, 9], [9, 7, 5, 3]])}).ok


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gemma2", "t5", "bert"])
def test_padded_inputs(name, side):
    """What a model computes at padding means nothing, and is not judged."""
    padded, _ = CASES[name].batch(side)
    report = ms.wrap(CASES[name].build()).check(padded)
    assert report.ok, report.failed


def test_a_model_without_a_map_cannot_be_checked():
    with pytest.raises(UnmappedModel, match="no map to check"):
        ms.wrap(torch.nn.Linear(2, 2)).check()
