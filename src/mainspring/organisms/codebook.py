"""Every code of a model, each with its own subspace, and how wide the model must be for that.

Variables with the same values share a geometry, so that a head can copy a code without changing its shape and two
variables can be compared by a dot product. `ANCHOR` is a constant direction in every state, `POSITION` the position
embedding of hosts that have one; an `Aggregate` has a small code for its mean, and a constant beside it.

What it does not do: share a subspace between variables, or make geometries for positions crowded.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.organisms.codes import Code, crowded, orthonormal
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.layout import Layout, Part, mean_of
from mainspring.organisms.program import Program
from mainspring.organisms.variables import Aggregate, Position, Previous, Select, position_word

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["ANCHOR", "POSITION", "Codebook", "codebook", "rest_of"]

POSITION, ANCHOR = "@position", "@anchor"


def rest_of(mean: str) -> str:
    """The constant that an Aggregate's head writes beside its mean, so that its norm is like any other head's."""
    return f"{mean}.rest"


@dataclass(frozen=True, eq=False)
class Codebook:
    """The codes by name; `nowhere` holds the direction that each silent backup writes."""

    codes: dict[str, Code]
    nowhere: dict[str, "Tensor"]
    width: int
    head_width: int
    tremor: float


@dataclass(frozen=True, eq=False)
class _Entry:
    name: str
    labels: tuple[str, ...]
    geometry: "Tensor"
    amplitude: float


def codebook(
    program: Program, layout: Layout, absolute: bool, turns: int, disguise: Disguise, generator: "Generator"
) -> Codebook:
    """Codes for a layout. `turns` is how many dimensions of each head are rotary, and so not free for content."""
    import torch

    one = torch.ones(1, 1, dtype=torch.float64)
    # A mean is small beside the anchor, so that its changing norm hardly moves layer norm's constant.
    tremor = max(0.05, disguise.anchor / 24)
    entries = [_Entry(ANCHOR, ("anchor",), one, disguise.anchor)]
    shape: dict[str, Tensor] = {}
    if absolute:
        positions = tuple(position_word(i) for i in range(program.length))
        shape[POSITION] = torch.eye(len(positions), dtype=torch.float64)
        entries.append(_Entry(POSITION, positions, shape[POSITION], 1.0))
    shared: dict[tuple[str, ...], Tensor] = {}
    for name, variable in layout.graph.items():
        if isinstance(variable, Position):
            shape[name] = shape[POSITION]
            continue
        part = next((part for part in layout.parts if part.writes == name), None)
        labels = layout.domains[name]
        if isinstance(variable, Aggregate):
            head = next(part for part in layout.parts if part.writes == mean_of(name))
            entries.append(_Entry(mean_of(name), ("mean",), one, tremor))
            entries.append(_Entry(rest_of(mean_of(name)), ("rest",), one, head.amplitude))
        if part is not None and part.role == "decoy":
            shape[name] = _decoy_geometry(part, len(labels), shape, generator)
        elif isinstance(variable, Previous | Select):
            shape[name] = shape[variable.source if isinstance(variable, Previous) else variable.value]
        else:
            if labels not in shared:
                shared[labels] = _geometry(labels, program, disguise.superposition, generator)
            shape[name] = shared[labels]
        entries.append(_Entry(name, labels, shape[name], 1.0 if part is None else part.amplitude * part.copies))
    silent = [part.writes for part in layout.parts if part.role == "backup"]
    room = sum(entry.geometry.shape[1] for entry in entries) + len(silent)
    content = max(geometry.shape[1] for geometry in shape.values()) + 2 + turns
    # Not rotated, a code's dimension takes a pair of axes; in any case the all-ones direction stays empty.
    room = (room if disguise.rotate else 2 * room) + 1
    need = max(content, program.length + 1 if absolute else 0, -(-room // layout.heads))
    head_width = -(-need // 8) * 8
    frame, used = orthonormal(head_width * layout.heads, generator, disguise.rotate), len(silent)
    codes: dict[str, Code] = {}
    for entry in entries:
        size = entry.geometry.shape[1]
        codes[entry.name] = Code(entry.labels, entry.geometry, frame[used : used + size], entry.amplitude)
        used += size
    for name, variable in layout.graph.items():
        if isinstance(variable, Position):
            codes[name] = codes[POSITION]
    nowhere = dict(zip(silent, frame, strict=False))
    return Codebook(codes, nowhere, head_width * layout.heads, head_width, tremor)


def _geometry(labels: tuple[str, ...], program: Program, superposition: float, generator: "Generator") -> "Tensor":
    import torch

    if superposition >= 1 or len(labels) < 5 or labels[0].startswith("@"):
        return torch.eye(len(labels), dtype=torch.float64)
    together: list[tuple[str, ...]] = [labels[1:]]
    if labels == program.vocabulary:
        together = list(program.classes)
    alone = [(word,) for word in labels if all(word not in words for words in together)]
    classes = [[labels.index(word) for word in words] for words in (*alone, *together)]
    return crowded(classes, superposition, generator)


def _decoy_geometry(part: Part, values: int, shape: dict[str, "Tensor"], generator: "Generator") -> "Tensor":
    """A decoy's values may be crowded together, for nobody reads them; a head can only crowd what is one-hot."""
    import torch

    if not isinstance(part.spec, Previous | Select):
        return torch.eye(values, dtype=torch.float64)
    source = shape[part.spec.source if isinstance(part.spec, Previous) else part.spec.value]
    if source.shape[0] != source.shape[1]:
        return source
    points = torch.randn(len(source), min(len(source), 8), dtype=torch.float64, generator=generator)
    return points / points.norm(dim=1, keepdim=True)
