"""Maps of the encoders, the image encoders, the dual encoders and T5, against plain torch."""

import pytest
import torch
import transformers as hf

from conformance.zoo import CASES
from mainspring import at
from mainspring.errors import SiteRefused
from mainspring.models.load import wrap
from models import map_algebra as algebra
from models.map_algebra import Bench

STACKS = [
    ("bert", ""),
    ("bert-chunked", ""),
    ("roberta", ""),
    ("distilbert", ""),
    ("modernbert", ""),
    ("vit", ""),
    ("dinov2", ""),
    ("dinov2-swiglu", ""),
    ("clip-vision", ""),
    ("clip", ""),
    ("clip", "vision"),
    ("siglip", ""),
    ("siglip", "vision"),
    ("t5", ""),
    ("t5", "encoder"),
    ("t5-gated", ""),
    ("t5-gated", "encoder"),
]


@pytest.fixture(scope="module", params=STACKS, ids=lambda p: f"{p[0]}-{p[1] or 'main'}")
def case(request):
    torch.set_num_threads(1)
    return algebra.bench(*request.param)


def test_reading_changes_nothing(case: Bench):
    algebra.check_reading_changes_nothing(case)


def test_heads(case: Bench):
    algebra.check_heads(case)


def test_mlp(case: Bench):
    algebra.check_mlp(case)


def test_residual(case: Bench):
    algebra.check_residual(case)


def test_noop(case: Bench):
    algebra.check_noop(case)


def test_writing(case: Bench):
    algebra.check_writing(case)


def test_stream_is_one(case: Bench):
    algebra.check_stream_is_one(case)


def test_head_knockout(case: Bench):
    algebra.check_head_knockout(case)


def test_gradients(case: Bench):
    algebra.check_gradients(case, exact=case.name not in ("modernbert", "t5", "t5-gated"))


def test_bfloat16(case: Bench):
    algebra.check_bfloat16(case)


# ---- padding, and torch's own hooks --------------------------------------------------------------------------------------------

PADDED = [p for p in STACKS if p[1] != "vision" and CASES[p[0]].batch is not None]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("name", "stack"), PADDED)
def test_a_padded_row_is_what_it_is_alone(name, stack, side):
    bench = algebra.bench(name, stack)
    algebra.check_padding(bench, side, algebra.every_site(bench))


BERT = {"attn.out": "attention.output.dense", "attn.z": "attention.self", "resid_mid": "attention.output", "resid_post": ""}
VIT = {"attn.out": "attention", "mlp.out": "mlp.fc2", "mlp.pre": "mlp.fc1", "resid_post": ""}
CLIP = {"attn.out": "self_attn.out_proj", "attn.q_proj": "self_attn.q_proj", "mlp.out": "mlp.fc2", "resid_post": ""}
T5 = {"attn.out": "layer.0.SelfAttention.o", "mlp.out": "layer.-1.DenseReluDense", "resid_post": ""}
HOOKS = {
    ("bert", ""): {**BERT, "mlp.pre": "intermediate.dense", "mlp.post": "intermediate", "mlp.out": "output.dense"},
    ("roberta", ""): {**BERT, "mlp.out": "output.dense"},
    ("distilbert", ""): {"attn.out": "attention", "resid_mid": "sa_layer_norm", "mlp.out": "ffn.lin2", "resid_post": ""},
    ("modernbert", ""): {"attn.out": "attn.Wo", "mlp.out": "mlp.Wo", "resid_post": ""},
    ("vit", ""): VIT,
    ("dinov2", ""): {**VIT, "attn.add": "layer_scale1", "mlp.add": "layer_scale2"},
    ("dinov2-swiglu", ""): {"attn.add": "layer_scale1", "mlp.pre": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.out": "mlp"},
    ("clip-vision", ""): CLIP,
    ("clip", ""): CLIP,
    ("clip", "vision"): CLIP,
    ("siglip", ""): CLIP,
    ("siglip", "vision"): CLIP,
    ("t5", ""): {**T5, "cross.out": "layer.1.EncDecAttention", "cross.k_proj": "layer.1.EncDecAttention.k"},
    ("t5", "encoder"): {**T5, "resid_mid": "layer.0", "mlp.pre": "layer.1.DenseReluDense.wi"},
    ("t5-gated", ""): {**T5, "mlp.pre": "layer.2.DenseReluDense.wi_0", "mlp.up": "layer.2.DenseReluDense.wi_1"},
}  # fmt: skip


@pytest.mark.parametrize("key", HOOKS, ids="-".join)
def test_values_are_those_of_plain_hooks(key):
    algebra.check_plain_hooks(algebra.bench(*key), HOOKS[key])


# ---- single families -----------------------------------------------------------------------------------------------------------


def test_modernbert_halves():
    """The first half of the fused projection is the activated one."""
    bench = algebra.bench("modernbert")
    for i in range(bench.depth):
        pre, up, post = (bench.whole[bench.site(f"mlp.{n}", i)] for n in ("pre", "up", "post"))
        algebra.close(bench.layer(i).mlp.act(pre) * up, post)


def test_t5_scores_hold_the_position_bias():
    bench = algebra.bench("t5", "encoder")
    q, k, scores = (bench.whole[bench.site(f"attn.{n}", 1)] for n in ("q", "k", "scores"))
    owner = bench.layer(0).layer[0].SelfAttention
    bias = owner.compute_bias(q.shape[1], k.shape[1])
    algebra.close(torch.einsum("bqhd,bkhd->bhqk", q, k) + bias, scores, 1e-4)


def test_t5_cross_attention_counts_tokens_of_both_sides():
    """Positions of cross keys and values, and the keys of its scores, are those of the encoder, whatever the padding."""
    model = wrap(CASES["t5"].build())
    padded, alone = CASES["t5"].batch("left")
    reads = [at.layers[1].cross.k(pos=0), at.layers[1].cross.v(pos=-1), at.layers[1].cross.pattern(query=-1, key=2)]
    together = model.run(padded, read=reads)
    for i, row in enumerate(alone):
        single = model.run(row, read=reads)
        for site in reads:
            algebra.close(together[site][i], single[site][0])
    long = {"input_ids": alone[2]["input_ids"], "decoder_input_ids": alone[0]["decoder_input_ids"]}
    trace = model.run(long, read=[at.layers[0].cross.scores, at.layers[0].cross.scores(key=0)])
    assert torch.equal(trace[at.layers[0].cross.scores(key=0)], trace[at.layers[0].cross.scores][..., 0])
    same = model.run(long, edits=[at.layers[0].cross.k(pos=0).scale(2.0), at.layers[0].attn.k(pos=-1).scale(2.0)])
    assert set(same.fired.values()) == {1}


def test_t5_encoder_alone():
    module = hf.T5EncoderModel(CASES["t5"].build().config).eval()
    model, ids = wrap(module), torch.arange(12, 20)[None]
    trace = model.run(ids, read=[at.embed, at.layers[:].resid_post, at.final_norm], until="end")
    assert model.n_layers == 3
    algebra.close(trace[at.final_norm], module(input_ids=ids).last_hidden_state)


def test_bert_as_a_decoder_has_cross_attention():
    config = CASES["bert"].build().config
    config.is_decoder, config.add_cross_attention = True, True
    module = hf.BertLMHeadModel(config).eval()
    inputs = {
        "input_ids": torch.arange(12, 18)[None],
        "encoder_hidden_states": torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(0)),
    }
    layer = at.layers[1]
    names = (layer.resid_pre, layer.resid_mid, layer.attn.add, layer.cross.add, layer.cross.pattern, layer.cross.head_out)
    model = wrap(module)
    trace = model.run(inputs, read=[*names, layer.cross.v, layer.cross.z], until="end")
    assert trace[layer.cross.pattern].shape == (1, 4, 6, 9)
    inside = module.bert.encoder.layer[1]
    after = inside.attention.output.LayerNorm(trace[layer.resid_pre] + trace[layer.attn.add])
    after = inside.crossattention.output.LayerNorm(after + trace[layer.cross.add])
    algebra.close(after, trace[layer.resid_mid])
    algebra.close(torch.einsum("bhqk,bkhd->bqhd", trace[layer.cross.pattern], trace[layer.cross.v]), trace[layer.cross.z])
    share = trace[layer.cross.head_out].sum(2) + inside.crossattention.output.dense.bias
    algebra.close(share, trace[layer.cross.add])


def test_chunked_mlps_are_refused():
    model = wrap(CASES["bert-chunked"].build())
    for name in ("pre", "post", "out", "add"):
        with pytest.raises(SiteRefused, match="slices of the text"):
            model.run(torch.arange(12, 20)[None], read=f"layers.0.mlp.{name}")
    config = CASES["distilbert"].build().config
    config.chunk_size_feed_forward = 1
    model = wrap(hf.DistilBertForMaskedLM(config).eval())
    assert not model.can("layers.0.mlp.post")
    assert model.can("layers.0.mlp.out")


def test_heads_of_other_kinds():
    """The same maps serve classifiers, and the axes of their logits are right."""
    ids = torch.arange(12, 20)[None]
    tokens = wrap(hf.BertForTokenClassification(CASES["bert"].build().config).eval())
    assert tokens.run(ids, read=at.logits(pos=-1))[at.logits(pos=-1)].shape == (1, 2)
    texts = wrap(hf.RobertaForSequenceClassification(CASES["roberta"].build().config).eval())
    assert texts.run(ids, read=[at.logits(vocab=1), at.layers[0].attn.z])[at.logits(vocab=1)].shape == (1,)
    pixels = CASES["clip-vision"].inputs()
    for dual, kind in (("clip", hf.CLIPForImageClassification), ("siglip", hf.SiglipForImageClassification)):
        images = wrap(kind(CASES[dual].build().config).eval())
        trace = images.run(pixels, read=[at.layers[:].resid_post, at.logits])
        assert trace[at.layers[:].resid_post].shape[0] == images.n_layers == 3
    halves = [hf.CLIPTextModelWithProjection(CASES["clip"].build().config.text_config), CASES["siglip"].build().text_model]
    for half in halves:
        assert wrap(half.eval()).run(ids, read=at.layers[1].attn.pattern)[at.layers[1].attn.pattern].shape == (1, 4, 8, 8)


def test_rows_of_a_vision_tower_are_images():
    """One text beside two images: row= of the vision tower picks an image."""
    bench = algebra.bench("clip", "vision")
    site = bench.site("resid_post", 1)
    trace = bench.run([site], [bench.site("resid_post", 0)(row=1).ablate("zero")])
    assert torch.equal(trace[site][0], bench.whole[site][0]) or torch.allclose(trace[site][0], bench.whole[site][0], atol=1e-5)
    assert not torch.allclose(trace[site][1], bench.whole[site][1], atol=1e-2)
    assert bench.run([site(row=1, pos=3)])[site(row=1, pos=3)].shape == (48,)


def test_clip_text_is_causal():
    bench = algebra.bench("clip")
    assert bench.whole[bench.site("attn.pattern", 0)].triu(1).abs().max() == 0
    assert algebra.bench("siglip").whole[bench.site("attn.pattern", 0)].triu(1).abs().max() > 0
