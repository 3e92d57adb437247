"""Idefics3 and SmolVLM: images in tiles; the rows of the vision tower are the tiles of all images that are not padding."""

from mainspring.models.families.clip import LAYER
from mainspring.models.maps import Map, Stack, Tower, outof

VISION = Stack("encoder.layers", LAYER, final_norm="post_layernorm")

MAPS = tuple(
    Map(
        family,
        (family,),
        trunk=("model.text_model", "text_model"),
        config="text_config",
        towers={"vision": Tower(("model.vision_model", "vision_model"), VISION, "vision_config")},
        top={"projector": outof("connector"), "image_tokens": "projector"},
        images="tiles",
        notes="An image of image_tokens is one tile; tiles of padding never reach the vision tower.",
    )
    for family in ("idefics3", "smolvlm")
)
