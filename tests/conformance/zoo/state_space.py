"""State-space models and hybrids of state space and attention."""

from __future__ import annotations

from typing import Any

from .case import BOS, PAD, VOCAB, Case, collect
from .decoders import LLAMA, decoder

D = 48
IDS = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None}
MAMBA = {
    "layers": "backbone.layers", "embed": "backbone.embeddings", "final_norm": "backbone.norm_f", "head": "lm_head",
    "mixer": "mixer", "mixer_out": "mixer.out_proj",
}  # fmt: skip
HYBRID = {**LLAMA, "final_norm": "model.final_layernorm", "mlp": "feed_forward", "mlp_out": "feed_forward.down_proj", "mixer": "mamba",
          "mixer_out": "mamba.out_proj"}  # fmt: skip
ATTENTION = {"hidden_size": D, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 72,
             "max_position_embeddings": 64, "rms_norm_eps": 1e-3}  # fmt: skip
SSM2 = {"mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 4,
        "mamba_conv_bias": True, "mamba_proj_bias": False}  # fmt: skip


def mamba(kind: str, *args: Any, **kwargs: Any) -> Case:
    case = decoder(*args, **kwargs)
    return Case(case.name, kind, case.build, case.inputs, case.batch, case.generates, case.facts, case.notes)


NO_ATTENTION = {
    "heads": None,
    "kv_heads": None,
    "head_dim": None,
    "mlp": None,
    "gated": None,
    "registry": False,
    "attn_scale": None,
}
FH1 = {
    "embedding_multiplier": 3.0, "lm_head_multiplier": 0.4, "mlp_multipliers": [0.7, 1.4], "key_multiplier": 1.3,
    "attention_in_multiplier": 0.8, "attention_out_multiplier": 1.2, "ssm_in_multiplier": 1.1, "ssm_out_multiplier": 0.9,
    "ssm_multipliers": [0.8, 1.2, 0.9, 1.1, 0.7],
}  # fmt: skip

CASES = collect(
    mamba(
        "state-space", "mamba", "MambaForCausalLM", "MambaConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "state_size": 8, "expand": 2, "conv_kernel": 4, "use_bias": False,
         "use_conv_bias": True, "time_step_rank": 5, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": True},
        **NO_ATTENTION, inner=2 * D, state=8, conv=4, dt_rank=5, paths=MAMBA,
    ),
    mamba(
        "state-space", "mamba-bias", "MambaForCausalLM", "MambaConfig",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "state_size": 8, "expand": 2, "conv_kernel": 4, "use_bias": True,
         "use_conv_bias": True, "time_step_rank": 5, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
        **NO_ATTENTION, inner=2 * D, state=8, conv=4, dt_rank=5, paths=MAMBA, left_padding_exact=False,
        notes="The reference itself is not exact under left padding: it zeroes padding before in_proj, whose bias then enters the convolution "
        "of the first real tokens. The default configurations have no such bias.",
    ),
    mamba(
        "state-space", "mamba2", "Mamba2ForCausalLM", "Mamba2Config",
        {**IDS, "hidden_size": D, "num_hidden_layers": 3, "state_size": 8, "expand": 2, "conv_kernel": 4, "num_heads": 4, "head_dim": 24,
         "n_groups": 2, "use_bias": False, "use_conv_bias": True, "chunk_size": 4, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
        **NO_ATTENTION, inner=2 * D, state=8, conv=4, ssm_heads=4, ssm_head_dim=24, groups=2, chunk=4, paths=MAMBA,
        notes="Longer than one chunk of the scan.",
    ),
    mamba(
        "hybrid", "falcon-h1", "FalconH1ForCausalLM", "FalconH1Config",
        {**IDS, **ATTENTION, **SSM2, **FH1, "num_hidden_layers": 3, "mamba_d_ssm": 2 * D, "mamba_rms_norm": True,
         "mamba_norm_before_gate": False, "projectors_bias": True, "head_dim": 20, "attention_bias": True, "mlp_bias": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": False},
        attn_layers=(0, 1, 2), ssm_layers=(0, 1, 2), inner=2 * D, state=8, ssm_heads=4, ssm_head_dim=24, groups=2, multipliers=FH1,
        embed_scale=3.0, embed_scale_in_module=False, logit_scale=0.4, layer_returns="tuple", paths=HYBRID,
        notes="Attention and state space side by side in every layer; nine kinds of multipliers.",
    ),
    mamba(
        "hybrid", "bamba", "BambaForCausalLM", "BambaConfig",
        {**IDS, **ATTENTION, **SSM2, "attn_layer_indices": [1, 3], "attention_bias": True, "mlp_bias": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": True},
        layers=4, attn_layers=(1, 3), ssm_layers=(0, 2), head_dim=12, attn_scale=12**-0.5, inner=2 * D, state=8, ssm_heads=4,
        ssm_head_dim=24, groups=2, layer_returns="tuple", paths=HYBRID, notes="Either attention or state space in a layer.",
    ),
    mamba(
        "hybrid", "jamba", "JambaForCausalLM", "JambaConfig",
        {**IDS, **ATTENTION, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 0,
         "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2,
         "mamba_dt_rank": 5, "mamba_conv_bias": True, "mamba_proj_bias": False, "tie_word_embeddings": False},
        layers=4, attn_layers=(1, 3), ssm_layers=(0, 2), moe_layers=(0, 2), experts=4, experts_per_token=2, expert_mlp=72, head_dim=12,
        attn_scale=12**-0.5, inner=2 * D, state=8, dt_rank=5, paths=HYBRID,
        notes="No positional encoding. The router is feed_forward.router.",
    ),
)  # fmt: skip
