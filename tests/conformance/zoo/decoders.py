"""Decoder-only language models.

Unless the class forbids it: 4 query heads over 2 key-value heads, head width 20 in a model of width 48, and every multiplier of the
configuration away from 1. `facts["paths"]` says where things are, for checks that use plain hooks: names below `layers[i]`, except
`layers`, `final_norm` and `head`, which start at the model. `attn_out` and `mlp_out` are the linear maps whose output is the
sublayer's own; `post` is the module whose input is the hidden neurons.
"""

from __future__ import annotations

from typing import Any

import transformers as hf

from .case import BOS, PAD, VOCAB, Case, collect, seeded, text, text_batch

D, HEADS, KV, DH, FF = 48, 4, 2, 20, 72
IDS = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None}
STD = {
    **IDS, "hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": 3, "intermediate_size": FF,
    "num_key_value_heads": KV, "head_dim": DH, "max_position_embeddings": 64, "rms_norm_eps": 1e-3,
}  # fmt: skip
NO_DH = {k: v for k, v in STD.items() if k != "head_dim"}
ROPE = {"rope_type": "default", "rope_theta": 500.0}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

LLAMA = {
    "layers": "model.layers", "embed": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head",
    "attn": "self_attn", "attn_out": "self_attn.o_proj", "mlp": "mlp", "mlp_out": "mlp.down_proj",
}  # fmt: skip
GPT2 = {
    "layers": "transformer.h", "embed": "transformer.drop", "final_norm": "transformer.ln_f", "head": "lm_head",
    "attn": "attn", "attn_out": "attn.c_proj", "mlp": "mlp", "mlp_out": "mlp.c_proj",
}  # fmt: skip
NEOX = {
    "layers": "gpt_neox.layers", "embed": "gpt_neox.emb_dropout", "final_norm": "gpt_neox.final_layer_norm", "head": "lm_head",
    "attn": "attention", "attn_out": "attention.dense", "mlp": "mlp", "mlp_out": "mlp.dense_4h_to_h",
}  # fmt: skip
FALCON = {
    "layers": "transformer.h", "embed": "transformer.word_embeddings", "final_norm": "transformer.ln_f", "head": "lm_head",
    "attn": "self_attention", "attn_out": "self_attention.dense", "mlp": "mlp", "mlp_out": "mlp.dense_4h_to_h",
}  # fmt: skip

USUAL = {
    "layers": 3, "d_model": D, "heads": HEADS, "kv_heads": KV, "head_dim": DH, "mlp": FF, "vocab": VOCAB,
    "parallel": False, "sandwich": False, "post_norm": False, "gated": True, "moe_layers": (), "window": None, "sliding_layers": (),
    "registry": True, "attn_scale": DH**-0.5, "attn_softcap": None, "embed_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0,
    "logit_softcap": None, "tied": False, "causal": True, "needs_position_ids": False, "layer_returns": "tensor", "paths": LLAMA,
}  # fmt: skip
"""Facts of a plain Llama; a case states what differs. `attn_scale` may be a tuple by layer. Scales multiply."""


def decoder(
    name: str, model: str, config: str, settings: dict[str, Any], *, notes: str = "", gain: float = 1.2, **facts: Any
) -> Case:
    """A causal model `hf.<model>` with `hf.<config>(**settings)`; `facts` are the differences from `USUAL`."""
    facts = {**USUAL, "tied": bool(settings.get("tie_word_embeddings", False)), **facts}

    def build() -> hf.PreTrainedModel:
        return seeded(lambda: getattr(hf, model)(getattr(hf, config)(**settings)), gain=gain)  # type: ignore[return-value]

    return Case(name, "decoder", build, text, text_batch(facts["needs_position_ids"]), True, facts, notes)


# ---------------------------------------------------------------------------------------------------- GPT-2 and its age

MHA = {"kv_heads": HEADS, "head_dim": D // HEADS, "attn_scale": (D // HEADS) ** -0.5, "gated": False}
gpt2 = {
    "vocab_size": VOCAB,
    "n_embd": D,
    "n_layer": 3,
    "n_head": HEADS,
    "n_inner": FF,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-2,
}
neox = {
    **IDS, "hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": HEADS, "intermediate_size": FF, "layer_norm_eps": 1e-2,
    "max_position_embeddings": 64, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "hidden_act": "gelu",
}  # fmt: skip
opt = {
    **IDS,
    "hidden_size": D,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "ffn_dim": FF,
    "max_position_embeddings": 64,
}
OPT = {
    "layers": "model.decoder.layers", "embed": None, "final_norm": "model.decoder.final_layer_norm", "head": "lm_head",
    "attn": "self_attn", "attn_out": "self_attn.out_proj", "mlp": None, "mlp_out": "fc2",
}  # fmt: skip

CASES = collect(
    decoder(
        "gpt2", "GPT2LMHeadModel", "GPT2Config", {**IDS, **gpt2, "tie_word_embeddings": True},
        **MHA, paths=GPT2, needs_position_ids=True,
    ),
    decoder(
        "gpt2-inverse-layer", "GPT2LMHeadModel", "GPT2Config", {**IDS, **gpt2, "scale_attn_by_inverse_layer_idx": True},
        **{**MHA, "attn_scale": tuple((D // HEADS) ** -0.5 / (i + 1) for i in range(3))}, tied=True, paths=GPT2, needs_position_ids=True,
        notes="The attention scale differs by layer.",
    ),
    decoder(
        "gpt-neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**neox, "use_parallel_residual": True, "tie_word_embeddings": False},
        **MHA, parallel=True, paths=NEOX,
    ),
    decoder(
        "gpt-neox-sequential", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**neox, "use_parallel_residual": False, "tie_word_embeddings": True},
        **MHA, paths=NEOX,
    ),
    decoder(
        "gptj", "GPTJForCausalLM", "GPTJConfig", {**IDS, **gpt2, "rotary_dim": 8, "tie_word_embeddings": False},
        **MHA, parallel=True, registry=False, layer_returns="tuple", paths={**GPT2, "attn_out": "attn.out_proj", "mlp_out": "mlp.fc_out"},
        notes="The head has a bias. The pattern is the input of attn.attn_dropout.",
    ),
    decoder(
        "gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig",
        {**IDS, "hidden_size": D, "num_layers": 4, "num_heads": HEADS, "intermediate_size": FF, "window_size": 4, "layer_norm_epsilon": 1e-2,
         "max_position_embeddings": 64, "attention_types": [[["global", "local"], 2]], "tie_word_embeddings": True},
        **{**MHA, "attn_scale": 1.0}, gain=0.8, layers=4, window=4, sliding_layers=(1, 3), registry=False, needs_position_ids=True,
        layer_returns="tuple", paths={**GPT2, "attn_out": "attn.attention.out_proj"},
        notes="Scores are not scaled. The pattern is the input of attn.attention.attn_dropout.",
    ),
    decoder(
        "opt", "OPTForCausalLM", "OPTConfig", {**opt, "do_layer_norm_before": True, "tie_word_embeddings": True},
        **{**MHA, "attn_scale": 1.0}, q_scale=(D // HEADS) ** -0.5, paths=OPT,
        notes="Queries are scaled after their projection, so q is already scaled; positions come from the attention mask; fc1 and fc2 see "
        "[batch * position, width].",
    ),
    decoder(
        "opt-350m", "OPTForCausalLM", "OPTConfig",
        {**opt, "do_layer_norm_before": False, "word_embed_proj_dim": 32, "tie_word_embeddings": False},
        **{**MHA, "attn_scale": 1.0}, q_scale=(D // HEADS) ** -0.5, post_norm=True, embed_width=32, paths={**OPT, "final_norm": None},
        notes="Post-norm: the stream after each sublayer is a LayerNorm output. project_in after the embedding, project_out before the head.",
    ),
    decoder(
        "bloom", "BloomForCausalLM", "BloomConfig",
        {**IDS, "hidden_size": D, "n_layer": 3, "n_head": HEADS, "layer_norm_epsilon": 1e-2, "tie_word_embeddings": True},
        **MHA, mlp=4 * D, registry=False, layer_returns="tuple", alibi=True, residual_in_module=True,
        paths={**FALCON, "embed": "transformer.word_embeddings_layernorm"},
        notes="The attention and MLP modules add the residual themselves. The pattern is the input of self_attention.attention_dropout.",
    ),
    decoder(
        "bloom-post-residual", "BloomForCausalLM", "BloomConfig",
        {**IDS, "hidden_size": D, "n_layer": 3, "n_head": 3, "layer_norm_epsilon": 1e-2, "apply_residual_connection_post_layernorm": True,
         "tie_word_embeddings": False},
        **{**MHA, "heads": 3, "kv_heads": 3, "head_dim": 16, "attn_scale": 0.25}, mlp=4 * D, registry=False, layer_returns="tuple",
        alibi=True, residual_in_module=True, residual_from_norm=True, paths={**FALCON, "embed": "transformer.word_embeddings_layernorm"},
        notes="The residual is the output of the norm, not the stream: resid_pre + attn.add is not resid_mid. Three heads: alibi slopes of a "
        "number that is no power of two.",
    ),
    decoder(
        "mpt", "MptForCausalLM", "MptConfig",
        {**IDS, "d_model": D, "n_layers": 3, "n_heads": HEADS, "max_seq_len": 64, "layer_norm_epsilon": 1e-2, "tie_word_embeddings": True,
         "attn_config": {"softmax_scale": 0.4, "clip_qkv": 2.5}},
        **{**MHA, "attn_scale": 0.4}, mlp=4 * D, registry=False, layer_returns="tuple", alibi=True, mlp_adds_residual=True, clip_qkv=2.5,
        paths={"layers": "transformer.blocks", "embed": "transformer.wte", "final_norm": "transformer.norm_f", "head": "lm_head",
               "attn": "attn", "attn_out": "attn.out_proj", "mlp": "ffn", "mlp_out": "ffn.down_proj"},
        notes="Functional softmax: the pattern is only in what the attention module returns. The MLP module adds the residual itself.",
    ),
    # ------------------------------------------------------------------------------------------------------------ Falcon
    decoder(
        "falcon-old", "FalconForCausalLM", "FalconConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": HEADS, "multi_query": True, "parallel_attn": True,
         "bias": False, "alibi": False, "ffn_hidden_size": FF, "rope_parameters": ROPE, "max_position_embeddings": 64,
         "layer_norm_epsilon": 1e-2, "tie_word_embeddings": True},
        **{**MHA, "kv_heads": 1}, parallel=True, registry=False, layer_returns="tuple", paths=FALCON,
        notes="The layer adds the attention output to the MLP output in place. Built with sdpa (the default), output_attentions=True is "
        "wrong in the reference: the boolean mask is added to the scores, which see the future.",
    ),
    decoder(
        "falcon-new", "FalconForCausalLM", "FalconConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": HEADS, "num_kv_heads": KV, "new_decoder_architecture": True,
         "bias": True, "alibi": False, "ffn_hidden_size": FF, "rope_parameters": ROPE, "max_position_embeddings": 64,
         "layer_norm_epsilon": 1e-2, "tie_word_embeddings": False},
        **{**MHA, "kv_heads": KV}, parallel=True, norms_in_parallel=2, registry=False, layer_returns="tuple", paths=FALCON, kv_repeated=True,
        notes="Keys and values are repeated to all heads before rotary and cache. In-place addition and wrong output_attentions as falcon-old.",
    ),
    decoder(
        "falcon-11b", "FalconForCausalLM", "FalconConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_kv_heads": KV, "new_decoder_architecture": True,
         "num_ln_in_parallel_attn": 1, "bias": False, "alibi": False, "ffn_hidden_size": FF, "rope_parameters": ROPE,
         "max_position_embeddings": 64, "layer_norm_epsilon": 1e-2, "tie_word_embeddings": False},
        **{**MHA, "kv_heads": KV}, layers=2, parallel=True, registry=False, layer_returns="tuple", paths=FALCON, kv_repeated=True,
    ),
    decoder(
        "falcon-alibi", "FalconForCausalLM", "FalconConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "num_attention_heads": HEADS, "multi_query": False, "parallel_attn": False,
         "bias": True, "alibi": True, "ffn_hidden_size": FF, "max_position_embeddings": 64, "layer_norm_epsilon": 1e-2,
         "tie_word_embeddings": True},
        **MHA, registry=False, layer_returns="tuple", alibi=True, paths=FALCON,
        notes="The reference adds alibi twice when eager (or when attentions are asked for) and once with sdpa, the default: logits differ.",
    ),
    # --------------------------------------------------------------------------------------------------- the Llama line
    decoder(
        "llama", "LlamaForCausalLM", "LlamaConfig",
        {**STD, "attention_bias": True, "mlp_bias": True, "rope_parameters": ROPE, "tie_word_embeddings": False},
    ),
    decoder(
        "llama3-rope", "LlamaForCausalLM", "LlamaConfig",
        {**STD, "tie_word_embeddings": True,
         "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 16}},
    ),
    decoder("mistral", "MistralForCausalLM", "MistralConfig", {**STD, "sliding_window": 6, "rope_parameters": ROPE}, window=6, sliding_layers=(0, 1, 2)),
    decoder(
        "qwen2", "Qwen2ForCausalLM", "Qwen2Config",
        {**STD, "use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED, "rope_parameters": ROPE, "tie_word_embeddings": True},
        window=4, sliding_layers=(0, 2),
    ),
    decoder(
        "qwen3", "Qwen3ForCausalLM", "Qwen3Config",
        {**STD, "attention_bias": True, "use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED, "rope_parameters": ROPE},
        window=4, sliding_layers=(0, 2), qk_norm=True,
    ),
    decoder(
        "qwen3-moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig",
        {**STD, "attention_bias": True, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1,
         "mlp_only_layers": [1], "norm_topk_prob": True, "rope_parameters": ROPE},
        moe_layers=(0, 2), experts=4, experts_per_token=2, expert_mlp=24, qk_norm=True, notes="Layer 1 has an ordinary gated MLP.",
    ),
    decoder(
        "mixtral", "MixtralForCausalLM", "MixtralConfig",
        {**STD, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6, "rope_parameters": ROPE, "tie_word_embeddings": True},
        moe_layers=(0, 1, 2), experts=4, experts_per_token=2, expert_mlp=FF, window=6, sliding_layers=(0, 1, 2),
    ),
    decoder(
        "gemma", "GemmaForCausalLM", "GemmaConfig", {**STD, "attention_bias": True, "rope_parameters": ROPE, "tie_word_embeddings": True},
        embed_scale=D**0.5, embed_scale_in_module=True,
    ),
    decoder(
        "gemma2", "Gemma2ForCausalLM", "Gemma2Config",
        {**STD, "attention_bias": True, "query_pre_attn_scalar": 11, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0,
         "sliding_window": 4, "layer_types": MIXED, "rope_parameters": ROPE, "tie_word_embeddings": True},
        sandwich=True, window=4, sliding_layers=(0, 2), attn_scale=11**-0.5, attn_softcap=3.0, logit_softcap=4.0,
        embed_scale=D**0.5, embed_scale_in_module=True,
    ),
    decoder(
        "gemma3-text", "Gemma3ForCausalLM", "Gemma3TextConfig",
        {**STD, "attention_bias": True, "query_pre_attn_scalar": 11, "final_logit_softcapping": 4.0, "sliding_window": 4, "layer_types": MIXED,
         "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}, "tie_word_embeddings": False},
        sandwich=True, window=4, sliding_layers=(0, 2), attn_scale=11**-0.5, logit_softcap=4.0, qk_norm=True,
        embed_scale=D**0.5, embed_scale_in_module=True, notes="Rotary frequencies differ by layer kind.",
    ),
    decoder(
        "phi3", "Phi3ForCausalLM", "Phi3Config",
        {**STD, "sliding_window": 6, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "tie_word_embeddings": False},
        window=6, sliding_layers=(0, 1, 2),
    ),
    decoder(
        "olmo2", "Olmo2ForCausalLM", "Olmo2Config", {**STD, "attention_bias": True, "rope_parameters": ROPE},
        sandwich=True, norm_before=False, qk_norm=True, notes="Norms only after the sublayers: they read the stream itself.",
    ),
    decoder(
        "granite", "GraniteForCausalLM", "GraniteConfig",
        {**STD, "attention_bias": True, "mlp_bias": True, "embedding_multiplier": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.6,
         "logits_scaling": 2.5, "rope_parameters": ROPE, "tie_word_embeddings": True},
        attn_scale=0.3, embed_scale=3.0, embed_scale_in_module=False, residual_scale=0.6, logit_scale=1 / 2.5,
    ),
    decoder(
        "starcoder2", "Starcoder2ForCausalLM", "Starcoder2Config",
        {**STD, "use_bias": True, "norm_epsilon": 1e-2, "sliding_window": 6, "rope_parameters": ROPE, "tie_word_embeddings": True},
        gated=False, window=6, sliding_layers=(0, 1, 2), paths={**LLAMA, "mlp_out": "mlp.c_proj"},
    ),
    decoder(
        "cohere2", "Cohere2ForCausalLM", "Cohere2Config",
        {**STD, "attention_bias": True, "layer_norm_eps": 1e-2, "logit_scale": 0.3, "sliding_window": 4, "layer_types": MIXED,
         "rope_parameters": ROPE, "tie_word_embeddings": True},
        parallel=True, window=4, sliding_layers=(0, 2), logit_scale=0.3, notes="Full layers have no positional encoding at all.",
    ),
    decoder(
        "stablelm", "StableLmForCausalLM", "StableLmConfig",
        {**NO_DH, "use_qkv_bias": True, "layer_norm_eps": 1e-2, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        head_dim=D // HEADS, attn_scale=(D // HEADS) ** -0.5,
    ),
    decoder(
        "stablelm-parallel", "StableLmForCausalLM", "StableLmConfig",
        {**NO_DH, "use_qkv_bias": False, "use_parallel_residual": True, "qk_layernorm": True, "layer_norm_eps": 1e-2,
         "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}, "tie_word_embeddings": True},
        head_dim=D // HEADS, attn_scale=(D // HEADS) ** -0.5, parallel=True, qk_norm=True,
    ),
    # ------------------------------------------------- two that no map names: what a structural resolver must find by itself
    decoder(
        "unknown-nemotron", "NemotronForCausalLM", "NemotronConfig",
        {**STD, "norm_eps": 1e-2, "attention_bias": True, "mlp_bias": True, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        gated=False, notes="LayerNorm with weight + 1; squared ReLU, not gated. The layer passes no keyword arguments on to its attention.",
    ),
    decoder(
        "unknown-seed-oss", "SeedOssForCausalLM", "SeedOssConfig",
        {**STD, "attention_bias": True, "attention_out_bias": True, "mlp_bias": True, "rope_parameters": ROPE, "tie_word_embeddings": True},
    ),
)  # fmt: skip
