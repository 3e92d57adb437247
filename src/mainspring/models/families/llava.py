"""LLaVA, Gemma 3 and PaliGemma: a CLIP-like tower, a projector, and a language model of a family of its own."""

from mainspring.models.maps import Map, Tower, outof

LANGUAGE = Tower(("model.language_model", "language_model"), config="text_config")
VISION = Tower(("model.vision_tower", "vision_tower", "model.vision_tower.vision_model"), config="vision_config")
PROJECTED = {"projector": outof("multi_modal_projector"), "image_tokens": "projector"}


def _map(family: str, notes: str) -> Map:
    return Map(
        family,
        (family,),
        trunk=LANGUAGE.trunk,
        config=LANGUAGE.config,
        towers={"vision": VISION},
        top=PROJECTED,
        positions="own",
        images=family,
        notes=notes,
    )


MAPS = (
    _map(
        "llava",
        "The projector reads the stream after the vision layer vision_feature_layer (most often the last but one); later vision "
        "layers run, but nothing reads them.",
    ),
    _map("gemma3", "Tokens of one image see each other in both directions when token_type_ids are given, as the processor does."),
    _map("paligemma", "The prompt attends in both directions when token_type_ids are given, as the processor does."),
)
