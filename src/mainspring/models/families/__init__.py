"""One small map per architecture family. `MAPS` finds a map by the `model_type` of a transformers configuration."""

import importlib
from functools import cache

from mainspring.models.maps import Map

__all__ = ["FAMILIES", "maps"]

FAMILIES = (
    "llama",
    "gpt2",
    "gpt_neox",
    "gptj",
    "gpt_neo",
    "opt",
    "bloom",
    "mpt",
    "falcon",
    "gemma",
    "phi3",
    "olmo2",
    "granite",
    "starcoder2",
    "cohere2",
    "stablelm",
    "mixtures",
    "mamba",
    "hybrids",
    "bert",
    "distilbert",
    "modernbert",
    "vit",
    "clip",
    "t5",
    "llava",
    "idefics3",
    "qwen_vl",
)
"""The modules of this folder; each has a tuple `MAPS`."""


@cache
def maps() -> dict[str, Map]:
    """Every map by the model types that it serves."""
    found: dict[str, Map] = {}
    for name in FAMILIES:
        for entry in importlib.import_module(f"mainspring.models.families.{name}").MAPS:
            for model_type in entry.model_types:
                if model_type in found:
                    raise ValueError(f"{model_type} has two maps: {found[model_type].family} and {entry.family}")
                found[model_type] = entry
    return found
