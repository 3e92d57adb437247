"""Granite: the layout of Llama with a constant factor on what each sublayer adds."""

from mainspring.models.maps import Map, Stack, attention, gated_mlp, outof, scaled, separate_qkv, sequential_residual

LAYER = (
    sequential_residual("post_attention_layernorm"),
    attention(add=outof("self_attn", form=scaled("residual_multiplier"))),
    separate_qkv(),
    gated_mlp(add=outof("mlp", form=scaled("residual_multiplier"))),
)

MAPS = (Map("granite", ("granite",), Stack(tables=LAYER)),)
