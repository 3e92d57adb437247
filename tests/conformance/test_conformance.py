"""Every site of every architecture against plain hooks and plain maths (`oracles`), which import nothing of mainspring."""

import functools

import pytest
import torch

import mainspring as ms
from conformance.oracles import Witness, stacks, worst
from conformance.zoo import CASES
from mainspring.sites import parse_site

DTYPES = {torch.float32: 1e-4, torch.bfloat16: 0.12}
CORE = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn.z",
    "attn.head_out",
    "attn.out",
    "attn.add",
    "mlp.post",
    "mlp.out",
    "mlp.add",
)

every_case = pytest.mark.parametrize("name", sorted(CASES))


def given(case, dtype=torch.float32):
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in case.inputs().items()}


@functools.lru_cache(maxsize=2)
def witnessed(name, dtype=torch.float32):
    """The witness of a case after one run, and our model of it. Neither is changed by a test."""
    case = CASES[name]
    witness = Witness(case, dtype)
    values = dict(witness.run(given(case, dtype)))
    return witness, values, ms.wrap(case.build().to(dtype))


# ---- values --------------------------------------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_every_site_holds_what_plain_hooks_see(name, dtype):
    """Scores and patterns are read too, so our softmax is written out as the witness's is: half precision can be compared."""
    _, values, model = witnessed(name, dtype)
    offered = [site for site in values if model.can(site)]
    trace = model.run(given(CASES[name], dtype), read=offered, until="end")
    wrong = {site: error for site in offered if not (error := worst(trace[site], values[site])) <= DTYPES[dtype]}
    assert wrong == {}
    words = {parse_site(site).name for site in offered}
    missing = {word for word in CORE if word not in words}
    allowed = {word for word in missing if all(not model.can(f"layers.{i}.{word}") for i in range(model.n_layers))}
    assert missing <= allowed | unwitnessed(name), "the witness did not see sites that the map offers"


def unwitnessed(name):
    """Sites whose value in plain torch is not known here, though the map offers them."""
    facts = CASES[name].facts
    if facts.get("post_norm") or facts.get("residual_from_norm"):
        return {"resid_mid"}
    return {"attn.add", "mlp.add"} if "multipliers" in facts else set()


@every_case
def test_the_fused_kernel_gives_what_the_witness_gives(name):
    """Without scores or patterns among the reads, no softmax is written out."""
    _, values, model = witnessed(name)
    sites = [s for s in values if s.endswith((".z", ".resid_post", ".attn.q", ".attn.k", ".attn.v", "logits")) and model.can(s)]
    trace = model.run(given(CASES[name]), read=sites, until="end")
    wrong = {site: error for site in sites if not (error := worst(trace[site], values[site])) <= 2e-4}
    assert wrong == {}


@every_case
def test_layers_heads_and_widths_are_those_of_the_configuration(name):
    _, _, model = witnessed(name)
    case, facts = CASES[name], CASES[name].facts
    text = facts.get("text_layers", facts.get("decoder_layers", facts["layers"]))
    assert model.n_layers == text
    if facts["heads"] is None:
        assert not model.can("layers.0.attn.z")
        return
    layer = facts.get("attn_layers", (0,))[0]
    sites = [f"layers.{layer}.attn.{n}" for n in ("q", "k", "v", "z", "pattern", "head_out")]
    trace = model.run(given(case), read=sites, until="end")
    shapes = {site.rsplit(".", 1)[1]: tuple(trace[site].shape) for site in sites}
    heads, head_dim = facts["heads"], facts.get("text_head_dim", facts["head_dim"])
    width = facts.get("text_width", facts["d_model"])
    batch, length = shapes["z"][:2]
    assert shapes["q"] == shapes["z"] == (batch, length, heads, head_dim)
    assert shapes["pattern"] == (batch, heads, length, length)
    assert shapes["head_out"] == (batch, length, heads, width)
    shared = heads if facts.get("kv_repeated") else facts["kv_heads"]
    assert shapes["v"] == shapes["k"]
    assert shapes["v"] in {(batch, length, n, head_dim) for n in (shared, facts["kv_heads"])}
    assert len(stacks(case)) == 1 + len([s for s in ("vision", "encoder") if s in model.atlas.towers])


MASKED = sorted(
    name
    for name, case in CASES.items()
    if case.kind not in ("state-space", "vision-language", "dual")  # or the mask depends on images
)


@pytest.mark.parametrize("name", MASKED)
def test_windows_and_causality(name):
    """Patterns are zero exactly where they must be; the example is longer than every window."""
    case, facts = CASES[name], CASES[name].facts
    _, _, model = witnessed(name)
    sites = [f"layers.{i}.attn.pattern" for i in range(model.n_layers) if model.can(f"layers.{i}.attn.pattern")]
    assert sites
    trace = model.run(given(case), read=sites, until="end")
    for site in sites:
        pattern, layer = trace[site], int(site.split(".")[1])
        n = pattern.shape[-1]
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        allowed = torch.ones(n, n, dtype=torch.bool)
        causal = facts["causal"] if facts["causal"] is not None else True
        if causal:
            allowed &= distance >= 0
        if layer in facts["sliding_layers"]:
            reach = facts["window"]
            allowed &= (distance < reach) if causal else (distance.abs() <= reach)
        assert torch.equal(pattern > 0, allowed.expand_as(pattern)), site
        torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]), atol=1e-5, rtol=0)


@every_case
def test_what_an_architecture_lacks_is_refused_with_the_reason(name):
    case, facts = CASES[name], CASES[name].facts
    _, _, model = witnessed(name)
    expected = {}
    if facts["parallel"]:
        expected["layers.0.resid_mid"] = "parallel"
    for layer in facts.get("moe_layers", ()):
        expected |= {f"layers.{layer}.mlp.{part}": "mixture of experts" for part in ("pre", "up", "post")}
        assert (
            model.run(given(case), read=f"layers.{layer}.mlp.router")[f"layers.{layer}.mlp.router"].shape[-1] == facts["experts"]
        )
    if case.kind == "state-space":
        expected |= {"layers.0.attn.z": "state-space", "layers.0.mlp.out": "no MLP", "layers.0.resid_mid": "no MLP"}
    elif "attn_layers" in facts:
        for layer in range(facts["layers"]):
            if layer not in facts["attn_layers"]:
                expected[f"layers.{layer}.attn.pattern"] = "state-space"
            if layer not in facts["ssm_layers"]:
                expected[f"layers.{layer}.ssm.y"] = "no state-space mixer"
    else:
        expected["layers.0.ssm.y"] = "no state-space mixer"
    if facts["gated"] is False and 0 not in facts.get("moe_layers", ()):
        expected["layers.0.mlp.up"] = "no gate"
    if case.kind != "encoder-decoder":
        expected["layers.0.cross.z"] = "no cross-attention"
    for site, words in expected.items():
        able = model.can(site)
        assert not able and words in able.reason, f"{site}: {able.reason}"
        with pytest.raises(ms.errors.SiteRefused) as caught:
            model.run(given(case), read=site)
        assert caught.value.reason == able.reason


# ---- edits ---------------------------------------------------------------------------------------------------------------------


def halved(v):
    return v * 0.5


def editable(values, model):
    """A few sites of a middle layer (or the first, where few follow) of every stack, and the top sites."""
    layers = {}
    for site in map(parse_site, values):
        if site.layers is not None:
            layers.setdefault(site.stack, set()).add(site.layers)
    chosen = {stack: sorted(found)[min(1, len(found) - 2)] for stack, found in layers.items()}
    names = (
        "resid_pre", "resid_post", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z", "attn.out", "mlp.post",
        "mlp.out", "ssm.y", "ssm.out", "cross.k", "cross.z", "cross.pattern",
    )  # fmt: skip
    for text in values:
        site = parse_site(text)
        top = site.layers is None and site.name in ("embed", "final_norm", "projector")
        if (top or (site.layers == chosen.get(site.stack) and site.name in names)) and model.can(site, "write"):
            yield text


@every_case
def test_an_edit_does_what_a_plain_hook_does(name):
    witness, values, model = witnessed(name)
    inputs, tried = given(CASES[name]), 0
    witness.run(inputs)
    plain = witness.answer().clone()
    fixed = {"attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern"}  # for the witness these pass only through the registry
    for site in editable(values, model):
        word = parse_site(site).name
        if word in fixed and not CASES[name].facts["registry"]:
            continue
        if site.endswith(("mlp.post", "mlp.out")) and witness.visits[site] > 1:
            continue
        witness.run(inputs, {site: halved})
        expected = witness.answer()
        ours = answer(model.run(inputs, edits=ms.at[site].scale(0.5), until="end"))
        error = worst(ours, expected)
        assert error <= 5e-4, f"{site}: off by {error:.2g}"
        tried += not torch.allclose(expected, plain, atol=1e-4)
    assert tried >= 5, "few of the edits changed the output, so little was proven"


def answer(trace):
    for key in ("logits", "last_hidden_state", "logits_per_image"):
        if isinstance(getattr(trace.output, key, None), torch.Tensor):
            return getattr(trace.output, key)
    raise AssertionError("no output that is known")
