"""Phi-3: the layout of Llama with q, k, v in one projection and gate and up in another."""

from mainspring.models.maps import Map, Stack, attention, fused_qkv, gated_mlp, half, merged, outof, sequential_residual

LAYER = (
    sequential_residual("post_attention_layernorm"),
    attention(),
    fused_qkv("self_attn.qkv_proj", "thirds"),
    merged(
        gated_mlp(),
        {"mlp.pre": outof("mlp.gate_up_proj", form=half(0)), "mlp.up": outof("mlp.gate_up_proj", form=half(1))},
    ),
)

MAPS = (Map("phi3", ("phi3",), Stack(tables=LAYER)),)
