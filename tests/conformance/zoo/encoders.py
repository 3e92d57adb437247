"""Text encoders, vision towers, dual encoders and T5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from .case import (
    BOS,
    LENGTHS,
    PAD,
    VOCAB,
    Case,
    Inputs,
    Side,
    collect,
    noise,
    pad_rows,
    positions,
    seeded,
    text,
    text_batch,
    tokens,
)

D, HEADS, FF = 48, 4, 72
SIZE = {"hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": HEADS, "intermediate_size": FF}
IDS = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS}
FACTS = {
    "layers": 3, "d_model": D, "heads": HEADS, "kv_heads": HEADS, "head_dim": D // HEADS, "mlp": FF, "vocab": VOCAB, "parallel": False,
    "sandwich": False, "post_norm": False, "gated": False, "registry": True, "attn_scale": (D // HEADS) ** -0.5, "causal": False,
    "window": None, "sliding_layers": (), "tied": False, "needs_position_ids": False, "layer_returns": "tensor",
}  # fmt: skip
IMAGE = {"image_size": 24, "patch_size": 6, "num_channels": 3}
"""16 patches."""


def case(
    name: str, kind: str, model: str, config: Callable[[], Any], inputs: Any, batch: Any, notes: str = "", **facts: Any
) -> Case:
    generates, gain = bool(facts.pop("generates", False)), facts.pop("gain", 1.2)
    build = lambda: seeded(lambda: getattr(hf, model)(config()), gain=gain)
    return Case(name, kind, build, inputs, batch, generates, {**FACTS, **facts}, notes)  # type: ignore[arg-type]


def pixels(count: int = 1) -> Callable[[], Inputs]:
    return lambda: {"pixel_values": noise(count, 3, 24, 24)}


# ------------------------------------------------------------------------------------------------------------ text


def bert_text() -> Inputs:
    ids = text()["input_ids"]
    return {"input_ids": ids, "token_type_ids": (torch.arange(ids.shape[1]) > 6).long()[None]}


bert = {**IDS, **SIZE, "max_position_embeddings": 64, "layer_norm_eps": 1e-2}
BERT_PATHS = {"layers": "bert.encoder.layer", "embed": "bert.embeddings", "final_norm": None, "head": "cls.predictions.decoder",
              "attn": "attention", "attn_out": "attention.output.dense", "mlp": None, "mlp_out": "output.dense"}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- CLIP, SigLIP

tower = {**SIZE, "layer_norm_eps": 1e-2}


def clip() -> hf.CLIPConfig:
    words = {**IDS, **tower, "eos_token_id": 3, "max_position_embeddings": 32, "num_hidden_layers": 2, "hidden_size": 32}
    return hf.CLIPConfig(text_config=words, vision_config={**tower, **IMAGE}, projection_dim=24)


def siglip() -> hf.SiglipConfig:
    words = {**IDS, **tower, "max_position_embeddings": 32, "num_hidden_layers": 2, "projection_size": D}
    return hf.SiglipConfig(text_config=words, vision_config={**tower, **IMAGE})


def dual(eos: int | None) -> tuple[Callable[[], Inputs], Callable[[Side], tuple[Inputs, list[Inputs]]]]:
    """Text beside two images. CLIP pools at the end token: it closes every row."""

    def row(i: int) -> torch.Tensor:
        ids = tokens(LENGTHS[i], seed=100 + i)
        if eos is not None:
            ids[:, -1] = eos
        return ids

    def inputs() -> Inputs:
        return {"input_ids": row(0), "pixel_values": noise(2, 3, 24, 24)}

    def batch(side: Side = "right") -> tuple[Inputs, list[Inputs]]:
        ids, images = [row(i) for i in range(3)], noise(2, 3, 24, 24)
        mask = pad_rows([torch.ones_like(x) for x in ids], side, 0)
        padded = {
            "input_ids": pad_rows(ids, side, PAD),
            "attention_mask": mask,
            "position_ids": positions(mask),
            "pixel_values": images,
        }
        return padded, [{"input_ids": x, "pixel_values": images} for x in ids]

    return inputs, batch


# ---------------------------------------------------------------------------------------------------------------- T5


def t5(**kwargs: Any) -> Callable[[], hf.T5Config]:
    return lambda: hf.T5Config(
        vocab_size=VOCAB, pad_token_id=PAD, eos_token_id=None, decoder_start_token_id=PAD, d_model=D, d_kv=20, d_ff=FF, num_layers=3,
        num_decoder_layers=2, num_heads=HEADS, relative_attention_num_buckets=8, relative_attention_max_distance=12,
        layer_norm_epsilon=1e-3, **kwargs,
    )  # fmt: skip


def t5_inputs() -> Inputs:
    return {**text(), "decoder_input_ids": tokens(7, seed=200)}


def t5_batch(side: Side = "right") -> tuple[Inputs, list[Inputs]]:
    """Sources padded on `side`; targets always on the right, as in training."""
    sources, targets = (
        [tokens(n, seed=100 + i) for i, n in enumerate(LENGTHS)],
        [tokens(n, seed=200 + i) for i, n in enumerate((7, 3, 5))],
    )
    padded = {
        "input_ids": pad_rows(sources, side, PAD),
        "attention_mask": pad_rows([torch.ones_like(x) for x in sources], side, 0),
        "decoder_input_ids": pad_rows(targets, "right", PAD),
        "decoder_attention_mask": pad_rows([torch.ones_like(x) for x in targets], "right", 0),
    }
    return padded, [{"input_ids": a, "decoder_input_ids": b} for a, b in zip(sources, targets, strict=True)]


T5 = {"decoder_layers": 2, "head_dim": 20, "attn_scale": 1.0, "registry": True, "layer_returns": "tuple", "causal": None, "generates": True,
      "relative_bias": True, "gain": 0.8}  # fmt: skip

CASES = collect(
    case(
        "bert", "encoder", "BertForMaskedLM", lambda: hf.BertConfig(**bert, tie_word_embeddings=True), bert_text, text_batch(True),
        post_norm=True, tied=True, needs_position_ids="left", paths=BERT_PATHS,
        notes="Post-norm: attention.output and output add the residual and normalise themselves.",
    ),
    case(
        "bert-chunked", "encoder", "BertForMaskedLM",
        lambda: hf.BertConfig(**bert, tie_word_embeddings=False, chunk_size_feed_forward=1), text, text_batch(True),
        post_norm=True, needs_position_ids="left", paths=BERT_PATHS,
        notes="The MLP modules run once per position, on slices [batch, 1, width].",
    ),
    case(
        "roberta", "encoder", "RobertaForMaskedLM", lambda: hf.RobertaConfig(**bert, tie_word_embeddings=True), text, text_batch(),
        post_norm=True, tied=True, notes="Positions are counted from the token ids, starting at pad_token_id + 1.",
        paths={**BERT_PATHS, "layers": "roberta.encoder.layer", "embed": "roberta.embeddings", "head": "lm_head.decoder"},
    ),
    case(
        "distilbert", "encoder", "DistilBertForMaskedLM",
        lambda: hf.DistilBertConfig(**IDS, dim=D, n_layers=3, n_heads=HEADS, hidden_dim=FF, max_position_embeddings=64,
                                    tie_word_embeddings=False),
        text, text_batch(True), post_norm=True, needs_position_ids="left",
        paths={"layers": "distilbert.transformer.layer", "embed": "distilbert.embeddings", "final_norm": None, "head": "vocab_projector",
               "attn": "attention", "attn_out": "attention.out_lin", "mlp": "ffn", "mlp_out": "ffn.lin2"},
    ),
    case(
        "modernbert", "encoder", "ModernBertForMaskedLM",
        lambda: hf.ModernBertConfig(
            **IDS, **{**SIZE, "num_hidden_layers": 4}, eos_token_id=3, cls_token_id=3, sep_token_id=4, max_position_embeddings=64,
            norm_eps=1e-2, norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, local_attention=6,
            layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"], tie_word_embeddings=True,
            rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
        text, text_batch(), layers=4, gated=True, tied=True, window=3, sliding_layers=(1, 2),
        paths={"layers": "model.layers", "embed": "model.embeddings", "final_norm": "model.final_norm", "head": "decoder",
               "attn": "attn", "attn_out": "attn.Wo", "mlp": "mlp", "mlp_out": "mlp.Wo"},
        notes="The window is symmetric: at most 3 tokens to either side. The first layer has no attention norm.",
    ),
    # ---------------------------------------------------------------------------------------------------------- vision
    case(
        "vit", "vision", "ViTForImageClassification",
        lambda: hf.ViTConfig(**SIZE, **IMAGE, num_labels=7, layer_norm_eps=1e-2), pixels(2), None, tokens=17, vocab=None,
        paths={"layers": "vit.layers", "embed": "vit.embeddings", "final_norm": "vit.layernorm", "head": "classifier",
               "attn": "attention", "attn_out": "attention.o_proj", "mlp": "mlp", "mlp_out": "mlp.fc2"},
        notes="The head reads token 0. Two images: nothing is padded.",
    ),
    case(
        "dinov2", "vision", "Dinov2Model",
        lambda: hf.Dinov2Config(**{k: v for k, v in SIZE.items() if k != "intermediate_size"}, **IMAGE, mlp_ratio=2, layerscale_value=0.7,
                                layer_norm_eps=1e-2),
        pixels(), None, tokens=17, vocab=None, mlp=2 * D,
        paths={"layers": "encoder.layer", "embed": "embeddings", "final_norm": "layernorm", "head": None, "attn": "attention",
               "attn_out": "attention.o_proj", "attn_add": "layer_scale1", "mlp": "mlp", "mlp_out": "mlp.fc2", "mlp_add": "layer_scale2"},
        notes="Layer scale: what is added is the sublayer's output times a learned vector.",
    ),
    case(
        "dinov2-swiglu", "vision", "Dinov2ForImageClassification",
        lambda: hf.Dinov2Config(**{k: v for k, v in SIZE.items() if k != "intermediate_size"}, **IMAGE, mlp_ratio=2, layerscale_value=0.7,
                                use_swiglu_ffn=True, num_labels=7),
        pixels(), None, tokens=17, vocab=None, mlp=64, gated=True,
        paths={"layers": "dinov2.encoder.layer", "embed": "dinov2.embeddings", "final_norm": "dinov2.layernorm", "head": "classifier",
               "attn": "attention", "attn_out": "attention.o_proj", "attn_add": "layer_scale1", "mlp": "mlp",
               "mlp_out": "mlp.down_proj", "mlp_add": "layer_scale2"},
    ),
    case(
        "clip-vision", "vision", "CLIPVisionModel", lambda: clip().vision_config, pixels(), None, tokens=17, vocab=None,
        paths={"layers": "encoder.layers", "embed": "pre_layrnorm", "final_norm": "post_layernorm", "head": None,
               "attn": "self_attn", "attn_out": "self_attn.out_proj", "mlp": "mlp", "mlp_out": "mlp.fc2"},
        notes="The final norm reads only token 0; last_hidden_state is not normalised.",
    ),
    case(
        "clip", "dual", "CLIPModel", clip, *dual(eos=3), text_layers=2, text_width=32, text_head_dim=8, tokens=17, text_causal=True,
        needs_position_ids="left",
        paths={"vision": "vision_model.encoder.layers", "text": "text_model.encoder.layers", "attn": "self_attn",
               "attn_out": "self_attn.out_proj", "mlp": "mlp", "mlp_out": "mlp.fc2"},
        notes="The text tower is causal (a keyword of the attention call, not a property of the module) and pools at the end token.",
    ),
    case(
        "siglip", "dual", "SiglipModel", siglip, *dual(eos=None), text_layers=2, text_width=D, tokens=16, text_causal=False,
        needs_position_ids="left",
        paths={"vision": "vision_model.encoder.layers", "text": "text_model.encoder.layers", "attn": "self_attn",
               "attn_out": "self_attn.out_proj", "mlp": "mlp", "mlp_out": "mlp.fc2"},
        notes="Text pools at the last position, a padding token in a right-padded row: its embedding depends on the padding, by design. "
        "The image pooling head is a torch MultiheadAttention.",
    ),
    # -------------------------------------------------------------------------------------------------------------- T5
    case(
        "t5", "encoder-decoder", "T5ForConditionalGeneration", t5(feed_forward_proj="relu", tie_word_embeddings=True), t5_inputs, t5_batch,
        **T5, tied=True, head_scale=D**-0.5, notes="No score scaling; a learned relative bias owned by layer 0 and shared by all. "
        "The decoder output is scaled by d_model ** -0.5 before the head.",
    ),
    case(
        "t5-gated", "encoder-decoder", "T5ForConditionalGeneration", t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        t5_inputs, t5_batch, **{**T5, "gated": True}, tied=True, head_scale=1.0,
        notes="Version 1.1: the configuration says untied, transformers 5 ties all the same and only leaves out the scaling of the head.",
    ),
)  # fmt: skip
