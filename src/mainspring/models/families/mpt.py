"""MPT: linear position biases, no biases elsewhere; the MLP adds the residual inside its module."""

from mainspring.models.maps import Map, Stack, attention, fused_qkv, merged, outof, plain_mlp, sequential_residual

LAYER = (
    sequential_residual("norm_2"),
    attention("attn", "out_proj", registered="inside"),
    fused_qkv("attn.Wqkv", "thirds"),
    merged(plain_mlp("ffn", "up_proj", "down_proj"), {"mlp.out": outof("ffn.down_proj")}),
)

MAPS = (
    Map(
        "mpt",
        ("mpt",),
        Stack("blocks", LAYER, final_norm="norm_f"),
        trunk=("transformer", ""),
        notes="attn.q_proj, k_proj and v_proj are what the projection gives, before clip_qkv limits it. Position biases count "
        "keys from the end of the padded text, so padding shifts attn.scores by a constant per head; patterns stay the same.",
    ),
)
