"""Directions that are known: those of an organism's truth, and those of a safetensors file.

    organism_directions("organism:guard")["refusal"].vector          a trained organism: named in its truth
    organism_directions("organism:two-hop")["second_hop: o3"]        a planted one: the code of each value of each variable
    saved_directions("mine.safetensors", layers=7)                   every vector; a matrix gives one for each row

Each says behind which layer it belongs, where that is known: from the truth, from a tensor's name such as `layers.5.resid_post`, or
because a matrix has as many rows as the model has layers. What it does not do: say that a direction of a file means anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mainspring.errors import InputError

__all__ = ["MOST", "Direction", "organism_directions", "read_tensors", "saved_directions"]

ORGANISM = "organism:"
MOST = 400
"""Directions that are listed of one file."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector [d] of the residual stream. `group` is what it is listed under."""

    name: str
    vector: Tensor
    layer: int | None
    group: str
    about: str


def organism_directions(model: str) -> dict[str, Direction]:
    """The directions of an organism, by the name or folder that it is loaded by; empty where there is no truth that names any."""
    import json

    from mainspring.organisms.registry import folder_of

    folder = folder_of(model.removeprefix(ORGANISM)) if model.startswith(ORGANISM) else Path(model)
    kept = folder / "truth.safetensors"
    if not kept.is_file() or not (folder / "truth.json").is_file():
        return {}
    truth: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    tensors = read_tensors(kept)
    found = [*_named(truth, tensors), *_codes(truth, tensors)]
    return {one.name: one for one in found}


def saved_directions(source: str | Path | bytes | Mapping[str, Tensor], layers: int = 0) -> dict[str, Direction]:
    """The vectors of a safetensors file; `layers` is how many the model has."""
    tensors = source if isinstance(source, Mapping) else read_tensors(source)
    found: dict[str, Direction] = {}
    for key, value in tensors.items():
        if value.ndim not in (1, 2) or not value.is_floating_point() or value.shape[-1] < 2:
            continue
        rows = value[None] if value.ndim == 1 else value
        for i, row in enumerate(rows):
            name = key if len(rows) == 1 else f"{key}[{i}]"
            layer = i if len(rows) == layers > 1 else _layer_in(key)
            if len(found) < MOST:
                found[name] = Direction(name, row.float(), layer, key if len(rows) > 1 else "", "")
    if not found:
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in list(tensors.items())[:4])
        raise InputError(
            f"there is no direction in this file: that is a tensor [d] or [n, d], and it holds {shapes or 'nothing'}"
        )
    return found


def read_tensors(source: str | Path | bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by its path or its bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        return load(source) if isinstance(source, bytes) else load_file(source)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        said = (
            f"there is no file {source}"
            if isinstance(error, FileNotFoundError)
            else "this is no safetensors file, or it is damaged"
        )
        raise InputError(said) from None


def _named(truth: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[Direction]:
    """Those that a truth names, where they are of the residual stream behind a layer."""
    found: list[Direction] = []
    for name, told in truth.get("directions", {}).items():
        vector, layer = tensors.get(told["tensor"]), _layer_in(told["site"])
        if vector is not None and vector.ndim == 1 and layer is not None and "resid_post" in told["site"]:
            found.append(Direction(name, vector.float(), layer, "in its truth", f"of {told['site']}"))
    return found


def _codes(truth: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[Direction]:
    """Of a planted organism: for each variable, behind the last layer that writes it, the code of each value."""
    writers: dict[str, tuple[int, str]] = {}
    for node in truth["nodes"]:
        if "head" in node and f"codes/{node['variable']}" in tensors:
            part = f"layers.{node['layer']}.{'mlp' if node['head'] is None else 'head.' + str(node['head'])}"
            writers[node["variable"]] = max(writers.get(node["variable"], (-1, "")), (node["layer"], part))
    return [
        Direction(f"{variable}: {value}", code.float(), layer, variable, f"written by {part}")
        for variable, (layer, part) in writers.items()
        for value, code in zip(truth["values"][variable], tensors[f"codes/{variable}"], strict=True)
        if value not in ("none", "<pad>") and bool(torch.isfinite(code).all()) and float(code.norm()) > 0
    ]


def _layer_in(text: str) -> int | None:
    """The layer that a site or a tensor's name tells."""
    found = re.search(r"(?:^|[^a-z])layers?[._\-\[ ]?(\d{1,3})(?!\d)", text)
    return int(found[1]) if found else None
