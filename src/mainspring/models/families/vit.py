"""ViT and DINOv2: pre-norm image encoders. DINOv2 scales each sublayer by a learned vector before adding it."""

from mainspring.models.maps import (
    Map,
    Stack,
    When,
    attention,
    gated_mlp,
    merged,
    outof,
    plain_mlp,
    separate_qkv,
    sequential_residual,
)

VIT = (
    sequential_residual("layernorm_after"),
    attention("attention", "o_proj"),
    separate_qkv("attention"),
    plain_mlp("mlp", "fc1", "fc2"),
)

SCALED = outof("layer_scale2")

DINOV2 = (
    sequential_residual("norm2"),
    merged(attention("attention", "o_proj", add=outof("layer_scale1")), separate_qkv("attention")),
    plain_mlp("mlp", "fc1", "fc2", add=SCALED),
    When("mlp.gate_proj", gated_mlp("mlp", add=SCALED)),
)

MAPS = (
    Map("vit", ("vit",), Stack(tables=VIT, final_norm="layernorm"), trunk=("vit", "")),
    Map("dinov2", ("dinov2",), Stack("encoder.layer", DINOV2, final_norm="layernorm"), trunk=("dinov2", "")),
)
