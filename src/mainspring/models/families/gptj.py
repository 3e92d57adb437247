"""GPT-J: attention and MLP in parallel behind one norm; attention computed by the module itself."""

from mainspring.models.maps import Map, Stack, attention, parallel_residual, plain_mlp, separate_qkv

LAYER = (
    parallel_residual(),
    attention("attn", "out_proj", registered="inside"),
    separate_qkv("attn"),
    plain_mlp("mlp", "fc_in", "fc_out"),
)

MAPS = (Map("gptj", ("gptj",), Stack("h", LAYER, final_norm="ln_f", residual="parallel"), trunk=("transformer", "")),)
