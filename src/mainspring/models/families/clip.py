"""CLIP and SigLIP: two pre-norm encoders of the same layer. The main stack is the text, the tower `vision` the image."""

from mainspring.models.maps import Map, Refused, Stack, Tower, attention, plain_mlp, separate_qkv, sequential_residual

LAYER = (
    sequential_residual("layer_norm2"),
    attention("self_attn", "out_proj"),
    separate_qkv(),
    plain_mlp("mlp", "fc1", "fc2"),
)

TEXT = Stack("encoder.layers", LAYER, final_norm="final_layer_norm")
CLIP_VISION = Stack(
    "encoder.layers",
    LAYER,
    final_norm=Refused("this tower normalises only its pooled class token, not the stream of patches"),
)
SIGLIP_VISION = Stack("encoder.layers", LAYER, final_norm="post_layernorm")


def _maps(family: str, prefix: str, classifier: str, vision: Stack) -> tuple[Map, ...]:
    """The dual model, each half alone, and the image classifier, which has the configuration of the dual model."""
    return (
        Map(
            family,
            (family,),
            TEXT,
            trunk=("text_model",),
            config="text_config",
            towers={"vision": Tower(("vision_model",), vision, "vision_config")},
        ),
        Map(f"{family}-text", (f"{prefix}_text_model",), TEXT, trunk=("text_model", "")),
        Map(f"{family}-vision", (f"{prefix}_vision_model",), vision, trunk=("vision_model", "")),
        Map(f"{family}-classifier", (classifier,), vision, trunk=("vision_model",), config="vision_config"),
    )


MAPS = (
    *_maps("clip", "clip", "CLIPForImageClassification", CLIP_VISION),
    *_maps("siglip", "siglip", "SiglipForImageClassification", SIGLIP_VISION),
)
