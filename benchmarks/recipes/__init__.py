"""How each library sweeps: one adapter each, written as its own documents advise."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipes.base import Recipe

RECIPES: dict[str, str] = {
    "plain loop": "recipes.plain_loop",
    "hand-batched": "recipes.hand_batched",
    "hand-batched whole": "recipes.hand_batched_whole",
    "mainspring": "recipes.mainspring_",
    "nnsight": "recipes.nnsight_",
    "TransformerLens": "recipes.transformer_lens_",
    "pyvene": "recipes.pyvene_",
    "interp-engine": "recipes.interp_engine_",
}
"""Name in the tables and the module that holds ``Adapter``. The plain loop is the reference and goes first."""


def load(name: str) -> type[Recipe]:
    """The adapter class of a contender; importing it imports the library."""
    return import_module(RECIPES[name]).Adapter
