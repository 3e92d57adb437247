"""GPT-2: learned positions, layer norm, one fused projection kept input-first (Conv1D)."""

from mainspring.models.maps import Map, Stack, attention, fused_qkv, plain_mlp, sequential_residual

LAYER = (
    sequential_residual("ln_2"),
    attention("attn", "c_proj"),
    fused_qkv("attn.c_attn", "thirds"),
    plain_mlp("mlp", "c_fc", "c_proj"),
)

MAPS = (Map("gpt2", ("gpt2",), Stack("h", LAYER, final_norm="ln_f"), trunk=("transformer", "")),)
