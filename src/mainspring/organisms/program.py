"""A program to plant: named variables, how its inputs look, and how the last position answers.

It is the causal model of the organism. It runs on words, not tensors: `run` gives every variable at every
position, `do=` sets a variable, `take=` takes a variable from another input, and the answer under such an
intervention is the counterfactual answer that the planted model has to give.

    answer = the tokens with the largest sum over outputs of  weight * [the value votes for the token]

What it does not do: learn, or say where in a model a variable lives; that is the layout and the truth.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from random import Random
from typing import Any

from mainspring.organisms.templates import Draw, Slot, Template, draw, redraw
from mainspring.organisms.variables import (
    Output,
    Token,
    Values,
    Variable,
    domain_of,
    evaluate,
    from_data,
    inputs_of,
    to_data,
)

__all__ = ["BOS", "PAD", "Pair", "Program"]

PAD, BOS = "<pad>", "<bos>"


@dataclass(frozen=True)
class Pair:
    """A clean input and a counterfactual one, and what differs at the last position."""

    clean: Draw
    other: Draw
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A planted program. `variables` is in order: each reads only what stands before it.

    `sinks` are the words that may open a sequence; a head that finds nothing looks there.
    """

    name: str
    words: tuple[str, ...]
    variables: tuple[tuple[str, Variable], ...]
    outputs: tuple[Output, ...]
    templates: tuple[Template, ...]
    sinks: tuple[str, ...] = (BOS,)
    spare: int = 4

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name, variable in self.variables:
            if name in seen:
                raise ValueError(f"{self.name}: two variables are called {name!r}")
            for source, _ in inputs_of(variable):
                if source not in seen:
                    raise ValueError(f"{self.name}: {name!r} reads {source!r}, which does not stand before it")
            seen.add(name)
        for output in self.outputs:
            if output.variable not in seen:
                raise ValueError(f"{self.name}: an output reads {output.variable!r}, which does not exist")
        for template in self.templates:
            strange = {word for slot in template.slots for word in slot.choices} - set(self.vocabulary)
            if strange or not set(template.slots[0].choices) <= set(self.sinks):
                raise ValueError(f"{self.name}: a template uses unknown words {sorted(strange)} or opens wrongly")

    @cached_property
    def vocabulary(self) -> Values:
        return tuple(dict.fromkeys((PAD, *self.sinks, *self.words)))

    @property
    def length(self) -> int:
        """The number of positions that a planted model has room for."""
        return max(len(template.slots) for template in self.templates) + self.spare

    @cached_property
    def graph(self) -> dict[str, Variable]:
        return dict(self.variables)

    @cached_property
    def token(self) -> str:
        """The name of the token variable."""
        return next(name for name, variable in self.variables if isinstance(variable, Token))

    @cached_property
    def domains(self) -> dict[str, Values]:
        domains: dict[str, Values] = {}
        for name, variable in self.variables:
            domains[name] = domain_of(variable, domains, self.vocabulary, self.length)
        return domains

    @cached_property
    def classes(self) -> tuple[Values, ...]:
        """Words that can stand in the same place belong together; words in no template are in no class."""
        classes: list[set[str]] = []
        for template in self.templates:
            for slot in template.slots:
                met = [words for words in classes if words & set(slot.choices)]
                classes = [words for words in classes if words not in met]
                classes += [set(slot.choices).union(*met)] if slot.choices else []
        return tuple(tuple(word for word in self.vocabulary if word in words) for words in classes)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Variables that have the same value at every position of every input (of one length)."""
        seen: dict[tuple[str, int], set[Values]] = {}
        for given in self.sample(200):
            for name, row in self.run(given.tokens).items():
                seen.setdefault((name, len(row)), set()).add(row)
        varied = {name for (name, _), rows in seen.items() if len(rows) > 1}
        return frozenset(name for name in self.graph if name not in varied)

    def run(
        self,
        tokens: Sequence[str],
        do: Mapping[str, str | Sequence[str]] | None = None,
        take: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Values]:
        """Every variable at every position, with some set to a word (or a row of words) or taken from another input."""
        forced: dict[str, Values] = {}
        for name, word in (do or {}).items():
            forced[name] = (word,) * len(tokens) if isinstance(word, str) else tuple(word)
        for name, source in (take or {}).items():
            forced[name] = self.run(source)[name]
        for name, row in forced.items():
            if name not in self.graph or len(row) != len(tokens) or not set(row) <= set(self.domains[name]):
                raise ValueError(f"{self.name}: cannot set {name!r} to {row}")
        values: dict[str, Values] = {}
        for name, variable in self.variables:
            values[name] = forced[name] if name in forced else evaluate(variable, tokens, values)
        return values

    def votes(self, values: Mapping[str, Values]) -> dict[str, float]:
        """How much every token is voted for at the last position."""
        votes: dict[str, float] = {}
        for output in self.outputs:
            for token in dict(output.tokens).get(values[output.variable][-1], ()):
                votes[token] = votes.get(token, 0.0) + output.weight
        return votes

    def answer(
        self,
        tokens: Sequence[str],
        do: Mapping[str, str | Sequence[str]] | None = None,
        take: Mapping[str, Sequence[str]] | None = None,
    ) -> frozenset[str]:
        """The tokens that are right at the last position; empty when the program has nothing to say."""
        return self.answered(self.run(tokens, do, take))

    def answered(self, values: Mapping[str, Values]) -> frozenset[str]:
        """The answer that follows from all variables."""
        votes = self.votes(values)
        best = max(votes.values(), default=0.0)
        return frozenset(token for token, vote in votes.items() if best > 0 and vote > 0.75 * best)

    def sample(self, count: int, seed: int = 0) -> list[Draw]:
        """Fresh inputs. Templates take turns, so that neighbours in the list differ in template too."""
        random = Random(f"{self.name}/{seed}")
        return [draw(random.choice(self.templates), random) for _ in range(count)]

    def pairs(self, variable: str, count: int, seed: int = 0) -> list[Pair]:
        """Clean and counterfactual inputs that differ in one slot, chosen to change `variable` where the answer is read.

        Of the one-slot changes that change the variable, the one that changes the fewest others wins.
        """
        random = Random(f"{self.name}/{variable}/{seed}")
        pairs: list[Pair] = []
        for _ in range(100 * count):
            if len(pairs) == count:
                break
            clean = draw(random.choice(self.templates), random)
            before = self.run(clean.tokens)
            best: Pair | None = None
            for other in redraw(clean, random):
                after = self.run(other.tokens)
                changed = tuple(name for name in self.graph if before[name][-1] != after[name][-1])
                if variable in changed and (best is None or len(changed) < len(best.changed)):
                    best = Pair(clean, other, changed)
            if best is not None:
                pairs.append(best)
        if len(pairs) == count:
            return pairs
        raise ValueError(f"{self.name}: no one-slot change of an input changes {variable!r} at the last position")

    def to_data(self) -> dict[str, Any]:
        """The program as JSON data; `from_data` gives back an equal one, also after a trip through text."""
        data: dict[str, Any] = asdict(self)
        data["variables"] = [[name, to_data(variable)] for name, variable in self.variables]
        return json.loads(json.dumps(data))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Program":
        return cls(
            name=data["name"],
            words=tuple(data["words"]),
            variables=tuple((name, from_data(item)) for name, item in data["variables"]),
            outputs=tuple(Output(item["variable"], from_data(item["tokens"]), item["weight"]) for item in data["outputs"]),
            templates=tuple(
                Template(
                    tuple(
                        Slot(slot["role"], tuple(slot["choices"]), slot["distinct"], tuple(slot["copy"]))
                        for slot in item["slots"]
                    )
                )
                for item in data["templates"]
            ),
            sinks=tuple(data["sinks"]),
            spare=data["spare"],
        )
