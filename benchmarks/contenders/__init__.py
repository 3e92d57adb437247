"""The libraries that are compared: one adapter each, written as the library's own documents advise."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contenders.base import Contender

CONTENDERS: dict[str, str] = {
    "bare": "contenders.bare",
    "plain hooks": "contenders.plain_hooks",
    "mainspring": "contenders.mainspring_",
    "nnsight": "contenders.nnsight_",
    "TransformerLens": "contenders.transformer_lens_",
    "pyvene": "contenders.pyvene_",
    "interp-engine": "contenders.interp_engine_",
}
"""Name in the tables and the module that holds ``Adapter``."""


def load(name: str) -> type[Contender]:
    """The adapter class of a contender; importing it imports the library."""
    return import_module(CONTENDERS[name]).Adapter
