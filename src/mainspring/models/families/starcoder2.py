"""StarCoder2: the layout of Llama with layer norm, biases and an MLP without a gate."""

from mainspring.models.maps import Map, Stack, attention, plain_mlp, separate_qkv, sequential_residual

LAYER = (sequential_residual("post_attention_layernorm"), attention(), separate_qkv(), plain_mlp("mlp", "c_fc", "c_proj"))

MAPS = (Map("starcoder2", ("starcoder2",), Stack(tables=LAYER)),)
