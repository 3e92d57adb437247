"""OLMo-2: sublayers read the stream itself and are normalised before they are added."""

from mainspring.models.maps import Map, Stack, attention, gated_mlp, outof, separate_qkv, sequential_residual

LAYER = (
    sequential_residual("mlp"),
    attention(add=outof("post_attention_layernorm")),
    separate_qkv(),
    gated_mlp(add=outof("post_feedforward_layernorm")),
)

MAPS = (Map("olmo2", ("olmo2",), Stack(tables=LAYER)),)
