"""Maps found by structure: two decoders that no map names, and mapped ones whose map is taken away."""

import pytest
import torch
import transformers as hf
from torch import nn

from conformance.zoo import CASES
from mainspring.errors import SiteRefused, UnmappedModel
from mainspring.models.families import maps
from mainspring.models.load import wrap
from mainspring.models.model import Model
from mainspring.models.structural import find_map
from mainspring.sites import Site, at
from mainspring.vocabulary import LAYER_SITES
from models import map_algebra as algebra
from models.map_algebra import Bench

UNKNOWN = [n for n in CASES if n.startswith("unknown-")]
FOUND = {
    "gpt2": (),
    "gpt-neox": (),
    "gpt-neox-sequential": (),
    "gptj": (),
    "gpt-neo": (),
    "opt": (),
    "bloom": (),
    "mpt": ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    "falcon-old": (),
    "falcon-new": (),
    "falcon-alibi": (),
    "llama": (),
    "qwen3-moe": ("mlp.router",),
    "mixtral": ("mlp.router",),
    "gemma2": (),
    "phi3": (),
    "olmo2": (),
    "starcoder2": (),
    "cohere2": (),
    "stablelm-parallel": (),
}
"""Mapped families that the structure alone gives away, and the sites that it does not."""
NOT_FOUND = {
    "granite": "add up",
    "opt-350m": "add up",
    "bloom-post-residual": "add up",
    "falcon-h1": "add up",
    "mamba": "queries",
    "bamba": "queries",
    "bert": "whole heads",
    "vit": "tokens",
    "t5": "not a decoder",
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("check", ["reading_changes_nothing", "heads", "mlp", "residual", "noop", "writing", "stream_is_one"])
def test_unknown_decoders_have_a_proven_map(name: str, check: str):
    case = Bench(name)
    assert case.model.config.model_type not in maps()
    assert case.model.map is not None
    assert "structure" in case.model.map.notes
    getattr(algebra, f"check_{check}")(case)


def test_what_is_found():
    case = Bench("unknown-nemotron")
    assert not case.model.can(at.layers[1].mlp.up)
    assert "no gate" in case.model.can(at.layers[1].mlp.up).reason
    every = [n for n in LAYER_SITES if not n.startswith(("cross.", "ssm.")) and n not in ("mlp.up", "mlp.router")]
    assert all(case.offers(n, 0) for n in every)
    assert case.model.can(at.final_norm)
    assert all(Bench("unknown-seed-oss").offers(n, 2) for n in [*every, "mlp.up"])


@pytest.mark.parametrize("name", FOUND)
def test_structure_agrees_with_the_map(name: str):
    """Every site is the same tensor, bit for bit, and only those that the structure cannot tell are missing."""
    module, inputs = CASES[name].build(), CASES[name].inputs()
    written = Model(module, maps()[module.config.model_type], maps(), None, None)
    found = Model(module, find_map(module), {}, None, None)
    sites = [Site(n, i) for i in range(written.n_layers) for n in LAYER_SITES]
    assert {s.name for s in sites if written.can(s) and not found.can(s)} == set(FOUND[name])
    assert not [s for s in sites if found.can(s) and not written.can(s)]
    both = [s for s in sites if found.can(s)] + [at.embed, at.final_norm]
    a, b = written.run(inputs, read=both, until="end"), found.run(inputs, read=both, until="end")
    assert all(torch.equal(a[s], b[s]) for s in both)


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_does_not_hold_is_said(name: str):
    with pytest.raises(UnmappedModel, match=NOT_FOUND[name]):
        find_map(CASES[name].build())


def test_an_unmapped_model_keeps_its_modules_and_says_why():
    config = hf.ElectraConfig(
        hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=60
    )
    model = wrap(hf.ElectraForMaskedLM(config).eval())
    assert model.map is None
    assert "has no" in model.atlas.unmapped
    with pytest.raises(UnmappedModel, match="output projection"):
        model.run(torch.arange(5), read=at.layers[0].resid_post)
    assert (
        model.run(torch.arange(5), read=at.module["electra.encoder.layer.0"].output)[
            at.module["electra.encoder.layer.0"].output
        ].ndim
        == 3
    )
    assert wrap(nn.Linear(2, 2)).atlas.unmapped == ""


def test_nothing_of_the_model_changes():
    module = CASES["unknown-seed-oss"].build().train()
    module.model.layers[0].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    modes = [m.training for m in module.modules()]
    find_map(module)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert all(p.grad is None for p in module.parameters())


def test_a_wrong_map_is_not_proven():
    """Attention adds something that is no head's."""
    module = CASES["unknown-seed-oss"].build()
    layer = module.model.layers[1]
    attend = layer.self_attn.forward
    layer.self_attn.forward = lambda **kwargs: (
        attend(**kwargs)[0] * 1.5,
        None,
    )  # not what its projection returns, nor that and a bias
    with pytest.raises(UnmappedModel):
        find_map(module)


def test_a_site_that_the_structure_cannot_tell_is_refused():
    module = CASES["mpt"].build()
    model = Model(module, find_map(module), {}, None, None)
    with pytest.raises(SiteRefused, match="does not tell"):
        model.run(CASES["mpt"].inputs(), read=at.layers[0].attn.q_proj)
