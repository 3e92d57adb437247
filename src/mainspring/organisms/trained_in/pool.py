"""Inputs to train on, and what every part should come to on them: as they are, or with a variable taken from another input.

    pool.batch(64, generator)               inputs of one length, and what they come to
    pool.taken(rows, others, names)         the same rows, each with the variable `names[i]` (or none) of row `others[i]`

What it does not do: judge; `verify` draws other inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mainspring.organisms.program import Program
from mainspring.organisms.tokens import ids_of
from mainspring.organisms.trained_in.alignment import Alignment, Seat, everything_of, looks_of
from mainspring.organisms.variables import Previous, Select, Values, inputs_of

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Pool", "Wanted"]

SILENT = 0.25  # share of rows in which heads with a backup are silenced


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a batch should come to.

    votes     [b, vocabulary] how much the program votes for each word at the end
    labels    per variable [b, p]: the index of its value
    looks     per head [b, p]: the position it should attend to
    silent    per variable with a backup [b]: its heads are silenced, and the backup should write; else it should not
    """

    votes: "Tensor"
    labels: "Mapping[str, Tensor]"
    looks: "Mapping[tuple[int, int | None], Tensor]"
    silent: "Mapping[str, Tensor]"

    def rows(self, picked: "Tensor") -> "Wanted":
        return Wanted(
            self.votes[picked],
            {name: labels[picked] for name, labels in self.labels.items()},
            {node: looks[picked] for node, looks in self.looks.items()},
            {name: silent[picked] for name, silent in self.silent.items()},
        )


class Pool:
    """Inputs grouped by length. `ids` and `wanted` are in the order of `groups`, which holds the rows of each group."""

    def __init__(self, program: Program, alignment: Alignment, count: int, seed: int) -> None:
        self.program, self.alignment = program, alignment
        self.words = {word: i for i, word in enumerate(program.vocabulary)}
        self.index = {seat.part.writes: {label: i for i, label in enumerate(seat.labels)} for seat in alignment.seats}
        carried = [seat.part.writes for seat in alignment.real]
        self.varying = tuple(dict.fromkeys(name for name in carried if name in program.graph and name not in program.constants))
        read = {source for variable in program.graph.values() for source, _ in inputs_of(variable)}
        self.answers = tuple(output.variable for output in program.outputs if output.variable not in read)
        outputs = {output.variable for output in program.outputs}
        self.crowded = any(len(s.labels) > s.codes.shape[1] for s in alignment.real if s.part.writes in outputs)
        draws = program.sample(count, seed=-2 - seed)
        groups: dict[int, list[int]] = {}
        for i, given in enumerate(draws):
            groups.setdefault(len(given.tokens), []).append(i)
        self.tokens = [given.tokens for given in draws]
        self.values = everything_of(program, alignment.layout, draws)
        self.groups = tuple(groups.values())
        self.ids = tuple(ids_of(program, [draws[i] for i in group]) for group in self.groups)
        self.wanted = tuple(self._natural(group) for group in self.groups)

    def batch(self, size: int, generator: "Generator") -> "tuple[list[int], Tensor, Wanted]":
        """Rows of one length at random, their ids [b, p], and what they should come to; some with silenced heads."""
        import torch

        sizes = torch.tensor([float(len(group)) for group in self.groups])
        which = int(torch.multinomial(sizes, 1, generator=generator))
        group = self.groups[which]
        picked = torch.randint(len(group), (size,), generator=generator)
        wanted = self.wanted[which].rows(picked)
        silent = {name: torch.rand(size, generator=generator) < SILENT for name in wanted.silent}
        return [group[i] for i in picked.tolist()], self.ids[which][picked], replace(wanted, silent=silent)

    def taken(self, rows: Sequence[int], others: Sequence[int], names: Sequence[str | None]) -> Wanted:
        """What the parts of the circuit should come to when each row takes one variable from another row.

        The part that computes this variable is to go on as before: it is what it writes that is replaced.
        """
        runs: list[Mapping[str, Values]] = []
        parts: list[Mapping[str, Values]] = []
        for i, j, name in zip(rows, others, names, strict=True):
            run = own = self.values[i]
            if name is not None:
                run = {**own, **self.program.run(self.tokens[i], do={name: self.values[j][name]})}
            runs.append(run)
            parts.append(run if name is None else {**run, name: own[name]})
        return self._wanted(rows, runs, parts, (*self.alignment.real, *self.alignment.backups))

    def mixed(self, rows: Sequence[int], others: Sequence[int], names: Sequence[str | None]) -> "Tensor":
        """[b, vocabulary]: the votes when each row takes a variable that nothing but the answer reads from another row."""
        runs = [
            self.values[i] if name is None else {**self.values[i], name: self.values[j][name]}
            for i, j, name in zip(rows, others, names, strict=True)
        ]
        return self._votes(runs)

    def _votes(self, runs: Sequence[Mapping[str, Values]]) -> "Tensor":
        import torch

        votes = torch.zeros(len(runs), len(self.words))
        for at, values in enumerate(runs):
            for word, vote in self.program.votes(values).items():
                votes[at, self.words[word]] = vote
        return votes

    def _natural(self, rows: Sequence[int]) -> Wanted:
        runs = [self.values[i] for i in rows]
        return self._wanted(rows, runs, runs, self.alignment.seats)

    def _wanted(
        self,
        rows: Sequence[int],
        runs: Sequence[Mapping[str, Values]],
        parts: Sequence[Mapping[str, Values]],
        seats: Sequence[Seat],
    ) -> Wanted:
        """`runs` are the values that are read, `parts` those that are computed."""
        import torch

        labels = {
            name: torch.tensor([[self.index[name].get(word, -1) for word in values[name]] for values in parts])
            for name in (seat.part.writes for seat in seats)
        }
        looks = {
            seat.node: torch.tensor([looks_of(seat.part, self.tokens[i], run) for i, run in zip(rows, runs, strict=True)])
            for seat in seats
            if isinstance(seat.part.spec, Previous | Select) and seat.part.head is not None
        }
        silent = {seat.part.writes: torch.zeros(len(runs), dtype=torch.bool) for seat in seats if seat.backup}
        return Wanted(self._votes(runs), labels, looks, silent)
