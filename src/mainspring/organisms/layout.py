"""Which head or MLP of which layer computes which variable, and what stands beside them.

A variable goes to a layer where everything it reads has been written. In sequential blocks an MLP reads what the
heads of its own layer wrote; in parallel blocks it reads the layer's input, so tables go one layer later.
Variables are delayed at random while the depth allows it; unused heads and MLPs become decoys.

What it does not do: numbers. See `compile`.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from mainspring.organisms.decoys import amplitudes, closest, decoy_head, decoy_table, restlessness
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.program import Program
from mainspring.organisms.variables import (
    Aggregate,
    Position,
    Previous,
    Select,
    Table,
    Token,
    Values,
    Variable,
    domain_of,
    inputs_of,
    position_word,
)

__all__ = ["Layout", "Part", "arrange", "lower", "mean_of"]

Role: TypeAlias = Literal["real", "backup", "decoy"]


def mean_of(name: str) -> str:
    """The name of the real number inside an `Aggregate`, between its head and its MLP."""
    return f"{name}.mean"


@dataclass(frozen=True)
class Part:
    """One head, or one table inside one MLP (then `head` is None).

    `writes` names the code it writes; `copies` heads together write it once. `amplitude` is the norm of its own part;
    `beta` the hardness of a head that is not as hard as the disguise says.
    """

    layer: int
    head: int | None
    writes: str
    spec: Variable
    role: Role
    copies: int = 1
    amplitude: float = 1.0
    beta: float | None = None

    @property
    def node(self) -> tuple[int, int | None]:
        return self.layer, self.head


@dataclass(frozen=True)
class Layout:
    """Where everything is. `graph` and `domains` hold the program as the host computes it, decoys included."""

    graph: Mapping[str, Variable]
    domains: Mapping[str, Values]
    layers: int
    heads: int
    parts: tuple[Part, ...]

    def at(self, layer: int, heads: bool) -> tuple[Part, ...]:
        """The heads, or the tables, of a layer."""
        return tuple(part for part in self.parts if part.layer == layer and (part.head is not None) == heads)

    def refitted(self, twin: Program) -> "Layout":
        """The same places for a program that differs only in the rows of its tables."""
        for name, variable in twin.graph.items():
            old = self.graph.get(name)
            same = old == variable or (isinstance(old, Table) and isinstance(variable, Table))
            if not same and not isinstance(variable, Position):
                raise ValueError(f"{twin.name}: {name!r} is not a table, and differs from the one it is a twin of")
            if twin.domains[name] != self.domains[name]:
                raise ValueError(f"{twin.name}: {name!r} takes other values than in the program it is a twin of")
        tables = {name: v for name, v in twin.graph.items() if isinstance(v, Table)}
        parts = tuple(replace(part, spec=tables.get(part.writes, part.spec)) for part in self.parts)
        return replace(self, graph={**self.graph, **tables}, parts=parts)


def lower(program: Program, absolute: bool) -> dict[str, Variable]:
    """The program's variables as a host computes them.

    A host without absolute positions finds the position from the share of attention that the opening token gets
    under uniform attention, 1 / (p + 1): a head and an MLP.
    """
    if absolute:
        return dict(program.graph)
    n = program.length
    cuts = tuple(0.5 * (1 / (p + 1) + 1 / (p + 2)) for p in reversed(range(n - 1)))
    bins = tuple(position_word(p) for p in reversed(range(n)))
    counting = Aggregate(program.token, program.sinks, cuts, bins)
    return {name: counting if isinstance(variable, Position) else variable for name, variable in program.variables}


def arrange(program: Program, absolute: bool, parallel: bool, disguise: Disguise, random: Random) -> Layout:
    """A layout for a host, at random under the dials of the disguise."""
    graph = lower(program, absolute)
    splits = dict(disguise.splits)
    for name in (*disguise.backups, *splits):
        if not isinstance(graph.get(name), Select | Previous):
            raise ValueError(f"{program.name}: {name!r} is not computed by a head, so it has no backup and no split")
    schedule = _Schedule(graph, parallel, disguise.backups)
    depth = schedule.depth(schedule.place(Random(0), 0.0)) + disguise.layers
    places = schedule.place(random, 0.0)
    for _ in range(300):
        trial = schedule.place(random, 0.3)
        if schedule.depth(trial) <= depth:
            places = trial
            break
    parts: list[Part] = []
    for name, layer in places.items():
        spec = graph[name.removesuffix("+").removesuffix(".mean")]
        if name.endswith("+"):
            parts.append(Part(layer, -1, name[:-1], spec, "backup"))
        elif name.endswith(".mean") or isinstance(spec, Previous | Select):
            copies = splits.get(name, 1)
            parts += [Part(layer, -1, name, spec, "real", copies)] * copies
        else:
            parts.append(Part(layer, None, name, spec, "real"))
    busiest = max(sum(part.layer == layer and part.head == -1 for part in parts) for layer in range(depth))
    heads = max(disguise.heads, busiest + disguise.decoys)
    domains: dict[str, Values] = {}
    for name, variable in graph.items():
        domains[name] = domain_of(variable, domains, program.vocabulary, program.length)
    seated = _seat(parts, depth, heads, random)
    decoys: list[Part] = []
    if disguise.decoys:
        decoys = _decoys(program, graph, domains, schedule, places, seated, depth, heads, random)
    still = program.constants | {mean_of(name) for name in program.constants}
    everything = {**graph, **{part.writes: part.spec for part in decoys}}
    for part in decoys:
        domains[part.writes] = domain_of(part.spec, domains, program.vocabulary, program.length)
    return Layout(everything, domains, depth, heads, _sized([*seated, *decoys], still, disguise.spread, random))


@dataclass(frozen=True)
class _Schedule:
    """Layers for variables. `x+` stands for the backup of x, and `x.mean` for the head of an Aggregate."""

    graph: Mapping[str, Variable]
    parallel: bool
    backups: tuple[str, ...]

    def place(self, random: Random, delay: float) -> dict[str, int]:
        places: dict[str, int] = {}
        for name, variable in self.graph.items():
            if isinstance(variable, Token | Position):
                continue
            late = int(random.random() < delay)
            by_head = [source for source, kind in inputs_of(variable) if kind != "mlp"]
            by_table = [source for source, kind in inputs_of(variable) if kind == "mlp"]
            first = max(
                (self.ready(s, places, False) for s in by_head),
                default=max((self.ready(s, places, True) for s in by_table), default=0),
            )
            if isinstance(variable, Aggregate):
                places[mean_of(name)] = first + late
                places[name] = first + late + self.parallel
            else:
                places[name] = first + late
            if name in self.backups:
                places[name + "+"] = places[name] + 1
        return places

    def ready(self, name: str, places: Mapping[str, int], for_table: bool) -> int:
        """The first layer whose heads (or tables) can read a variable."""
        last = places.get(name + "+", places.get(name))
        if last is None:
            return 0
        same = for_table and not self.parallel and isinstance(self.graph[name], Previous | Select)
        return last if same else last + 1

    @staticmethod
    def depth(places: Mapping[str, int]) -> int:
        return 1 + max(places.values())


def _seat(parts: list[Part], depth: int, heads: int, random: Random) -> list[Part]:
    seated: list[Part] = []
    for layer in range(depth):
        seats = random.sample(range(heads), heads)
        for part in (part for part in parts if part.layer == layer):
            head = None if part.head is None else seats.pop()
            seated.append(replace(part, head=head))
    return seated


def _decoys(
    program: Program,
    graph: Mapping[str, Variable],
    domains: Mapping[str, Values],
    schedule: _Schedule,
    places: Mapping[str, int],
    seated: list[Part],
    depth: int,
    heads: int,
    random: Random,
) -> list[Part]:
    taken = {part.node for part in seated}
    still = program.constants
    runs = [program.run(given.tokens) for given in program.sample(24)]
    pace = {name: restlessness([run[name] for run in runs]) for name in graph}
    targets = [pace[part.writes] for part in seated if part.writes in pace and part.writes not in still]
    decoys: list[Part] = []
    for layer in range(depth):
        for head in (*range(heads), None):
            if (layer, head) in taken:
                continue
            ready = {n: domains[n] for n in graph if schedule.ready(n, places, head is None) <= layer}
            # What never changes makes a decoy that never changes: too easy to tell.
            lively = {n: d for n, d in ready.items() if n not in still and not isinstance(graph[n], Position)}
            real = [v for v in graph.values() if all(name in ready for name, _ in inputs_of(v))]
            candidates: list[Variable] = [
                decoy_table(real, lively, random) if head is None else decoy_head(real, lively, program.classes, random)
                for _ in range(12)
            ]
            spec = closest(candidates, random.choice(targets), runs, program.token)
            decoys.append(Part(layer, head, f"decoy.{layer}.{'mlp' if head is None else head}", spec, "decoy"))
    return decoys


def _sized(parts: list[Part], still: Set[str], spread: float, random: Random) -> tuple[Part, ...]:
    """Amplitudes by node: tables that share an MLP share its norm, and copies of a head have equal norms."""
    real = list(dict.fromkeys(p.node for p in parts if p.role == "real" and p.writes not in still))
    decoys = list(dict.fromkeys(part.node for part in parts if part.role == "decoy"))
    ours, theirs = amplitudes(len(real), len(decoys), spread, random)
    size = {**dict(zip(real, ours, strict=True)), **dict(zip(decoys, theirs, strict=True))}
    size |= {p.node: random.uniform(1 - spread, 1 + spread) for p in parts if p.node not in size}
    sized: list[Part] = []
    whole: dict[str, float] = {}
    for part in parts:
        sharing = sum(other.node == part.node for other in parts)
        if part.role != "backup":
            amplitude = size[part.node] / sharing**0.5
            whole.setdefault(part.writes, amplitude)
            amplitude = whole[part.writes]
            sized.append(replace(part, amplitude=amplitude))
    for part in parts:
        if part.role == "backup":
            copies = next(p.copies for p in sized if p.writes == part.writes)
            amplitude = whole[part.writes] * copies
            sized.append(replace(part, amplitude=amplitude))
    return tuple(sized)
