"""GPT-Neo: scores without scale, local attention in every other layer, attention computed by the module itself."""

from mainspring.models.maps import Map, Stack, attention, plain_mlp, separate_qkv, sequential_residual

LAYER = (
    sequential_residual("ln_2"),
    attention("attn.attention", "out_proj", registered="inside"),
    separate_qkv("attn.attention"),
    plain_mlp("mlp", "c_fc", "c_proj"),
)

MAPS = (Map("gpt_neo", ("gpt_neo",), Stack("h", LAYER, final_norm="ln_f"), trunk=("transformer", "")),)
