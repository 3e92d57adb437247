"""Gemma 2 and 3: a norm before and one after each sublayer, so what is added to the stream is not what the sublayer returns."""

from mainspring.models.maps import Map, Stack, attention, gated_mlp, outof, separate_qkv, sequential_residual

LAYER = (
    sequential_residual("pre_feedforward_layernorm"),
    attention(add=outof("post_attention_layernorm")),
    separate_qkv(),
    gated_mlp(add=outof("post_feedforward_layernorm")),
)

MAPS = (Map("gemma2", ("gemma2", "gemma3_text"), Stack(tables=LAYER)),)
