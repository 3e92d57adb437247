"""ModernBERT: pre-norm and rotary, bidirectional with local and global layers; the gate is the second half of one projection."""

from mainspring.models.maps import Map, Stack, attention, fused_qkv, gated_mlp, half, merged, outof, sequential_residual

LAYER = (
    sequential_residual("mlp_norm"),
    attention("attn", "Wo"),
    fused_qkv("attn.Wqkv", "thirds"),
    merged(
        gated_mlp("mlp", down="Wo"),
        {"mlp.pre": outof("mlp.Wi", form=half(0)), "mlp.up": outof("mlp.Wi", form=half(1))},
    ),
)

MAPS = (Map("modernbert", ("modernbert",), Stack(tables=LAYER, final_norm="final_norm")),)
