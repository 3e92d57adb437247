"""Which part of the host carries which variable, in which subspace: chosen by seed before anything is trained.

Places come from `layout`, as on the compiled route: every variable goes to a head or an MLP of a layer where what it
reads has been written, and every other head and MLP is a decoy, which carries something that nobody reads. Each real
variable has a random subspace of its own, with one code per value:

    what the part writes, projected on the subspace  ->  amplitude * code[value]

What it does not do: train, or hold by itself; the losses pull the host towards it and `verify` measures it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from mainspring.organisms.codes import crowded
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.hosts import TrainedHost
from mainspring.organisms.layout import Layout, Part, arrange
from mainspring.organisms.program import Program
from mainspring.organisms.templates import Draw
from mainspring.organisms.trained_in.hosts import Size
from mainspring.organisms.variables import Aggregate, Position, Previous, Select, Values, evaluate, inputs_of

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Alignment", "Seat", "align", "everything_of", "looks_of"]

HEAD = 32  # the most dimensions of a code; a head is as wide as the widest code that a head writes
ROOM = 24  # dimensions of the residual stream beside those of the real variables


@dataclass(frozen=True, eq=False)
class Seat:
    """A part and the variable it carries. `basis` [r, d] has orthonormal rows; `codes` [value, r] is in them."""

    part: Part
    labels: Values
    basis: "Tensor"
    codes: "Tensor"

    @property
    def node(self) -> tuple[int, int | None]:
        return self.part.node

    @property
    def real(self) -> bool:
        return self.part.role == "real"

    @property
    def backup(self) -> bool:
        return self.part.role == "backup"


@dataclass(frozen=True, eq=False)
class Alignment:
    """All seats, in order of layer. `layout` is in terms of the host: on a host without heads every part is an MLP.

    A backup carries the variable of the head that it stands in for, in the same subspace with the same codes.
    """

    layout: Layout
    seats: tuple[Seat, ...]
    size: Size

    @property
    def real(self) -> tuple[Seat, ...]:
        return tuple(seat for seat in self.seats if seat.real)

    @property
    def backups(self) -> tuple[Seat, ...]:
        return tuple(seat for seat in self.seats if seat.backup)


def everything_of(program: Program, layout: Layout, draws: Sequence[Draw]) -> list[dict[str, Values]]:
    """Every variable of every input, those of the decoys included."""
    decoys = {part.writes: part.spec for part in layout.parts if part.role == "decoy"}
    runs: list[dict[str, Values]] = []
    for given in draws:
        values = program.run(given.tokens)
        values |= {
            part.writes: _means(part.spec, values)
            for part in layout.parts
            if isinstance(part.spec, Aggregate) and part.head is not None
        }
        for name, spec in decoys.items():
            values[name] = evaluate(spec, given.tokens, values)
        runs.append(values)
    return runs


def _means(spec: Aggregate, values: Mapping[str, Values]) -> Values:
    """The share of positions so far whose source is among the words, as a word."""
    hits = [word in spec.among for word in values[spec.source]]
    return tuple(f"{sum(hits[: p + 1]) / (p + 1):.6f}" for p in range(len(hits)))


def looks_of(part: Part, tokens: Sequence[str], values: Mapping[str, Values]) -> list[int]:
    """The position that a head attends to, from every position."""
    spec = part.spec
    if not isinstance(spec, Previous | Select):
        raise TypeError(f"{part.writes} is no single look: {spec}")
    places = {**values, "@place": tuple(str(i) for i in range(len(tokens)))}
    aimed = replace(spec, source="@place") if isinstance(spec, Previous) else replace(spec, value="@place")
    return [int(place) for place in evaluate(aimed, tokens, places)]


def align(program: Program, host: TrainedHost, disguise: Disguise, seed: int) -> Alignment:
    """Places, subspaces and codes at random under the seed, and the size of a model that has room for them."""
    import torch

    layout = _arranged(program, host, disguise, seed)
    generator = torch.Generator().manual_seed(seed)
    draws = program.sample(400, seed=-1)
    runs = everything_of(program, layout, draws)
    met = _met(runs)
    geometry = {part.writes: _geometry(part, met[part.writes], disguise, generator) for part in layout.parts}
    real = [part for part in layout.parts if part.role == "real"]
    used = sum(geometry[part.writes].shape[1] for part in real)
    width = 32 * -(-(used + ROOM) // 32)
    heads = [geometry[part.writes].shape[1] for part in layout.parts if part.head is not None]
    size = Size(width, layout.layers, layout.heads, 8 * -(-max(heads, default=8) // 8), 2 * width, _reach(layout, draws, runs))
    frame = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q if disguise.rotate else torch.eye(width)
    seats: list[Seat] = []
    bases: dict[str, Tensor] = {}
    at = 0
    for part in sorted(layout.parts, key=lambda part: part.role == "decoy"):
        shape = geometry[part.writes]
        if part.role == "decoy":  # decoys share what is left: nobody reads them, so that they need no room of their own
            rest = frame[used:]
            basis = torch.linalg.qr(torch.randn(len(rest), min(shape.shape[1], len(rest)), generator=generator)).Q.T @ rest
            if len(basis) < shape.shape[1]:
                shape = torch.nn.functional.normalize(torch.randn(len(shape), len(basis), generator=generator))
        elif part.writes in bases:
            basis = bases[part.writes]
        else:
            basis = bases[part.writes] = frame[at : at + shape.shape[1]]
            at += shape.shape[1]
        seats.append(Seat(part, met[part.writes], basis.contiguous(), part.amplitude * shape))
    return Alignment(layout, tuple(sorted(seats, key=lambda seat: seat.part.layer)), size)


def _arranged(program: Program, host: TrainedHost, disguise: Disguise, seed: int) -> Layout:
    """The layout of the compiled route, where an even number of heads can be grouped, or where there are none."""
    if not host.heads:
        layout = arrange(program, True, True, disguise, Random(seed))
        parts = tuple(replace(part, head=None) for part in layout.parts if part.role == "real")
        return replace(layout, heads=0, parts=parts)
    # Rotary heads know how far they look. What is only looked for by its place needs no more; a place that is copied
    # or looked up has to be computed first.
    given = not any(
        isinstance(program.graph[name], Position) and via != "k"
        for spec in program.graph.values()
        for name, via in inputs_of(spec)
    )
    layout = arrange(program, given, False, disguise, Random(seed))
    return (
        layout
        if layout.heads % 2 == 0
        else arrange(program, given, False, replace(disguise, heads=layout.heads + 1), Random(seed))
    )


def _reach(layout: Layout, draws: Sequence[Draw], runs: Sequence[Mapping[str, Values]]) -> tuple[int, ...]:
    """How far back the real heads of each layer look; a mean looks everywhere."""
    reach = [0] * layout.layers
    for part in layout.parts:
        if part.role == "decoy" or part.head is None:
            continue
        for given, values in zip(draws, runs, strict=True):
            places = range(len(given.tokens))
            looks = looks_of(part, given.tokens, values) if isinstance(part.spec, Previous | Select) else [0 for _ in places]
            reach[part.layer] = max(reach[part.layer], *(p - look for p, look in zip(places, looks, strict=True)))
    return tuple(reach)


def _met(runs: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    """The values that each variable takes, in alphabetical order."""
    names = runs[0].keys()
    return {name: tuple(sorted({word for run in runs for word in run[name]})) for name in names}


def _geometry(part: Part, labels: Values, disguise: Disguise, generator: "Generator") -> "Tensor":
    """[value, r]: a mean is a length; words are one-hot where there is room, else unit vectors in fewer dimensions."""
    import torch

    if isinstance(part.spec, Aggregate) and part.head is not None:
        return torch.tensor([[float(label)] for label in labels])
    share = min(disguise.superposition, HEAD / len(labels))
    return torch.eye(len(labels)) if share >= 1 else crowded([range(len(labels))], share, generator).float()
