"""Numbers over edges: what a method says of each, and the best of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mainspring.engine.edges.graph import Graph
from mainspring.engine.edges.names import Edge
from mainspring.errors import InputError

__all__ = ["SIGNS", "EdgeScores"]

SIGNS = ("absolute", "positive", "negative")
"""Which scores count as large: those far from zero, those above it, those below."""


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """`values[edge, row]`: by how much the metric of a row changes when that edge alone carries its other value.

    Positive: the patch raises the metric, so in the clean run the edge holds it down. `method` says how the numbers were had.
    `by_token[edge, row, column]`, where it was asked for, says how they come together from the columns of the padded texts.
    """

    graph: Graph
    edges: tuple[Edge, ...]
    values: Tensor
    method: str
    by_token: Tensor | None = None

    @cached_property
    def mean(self) -> Tensor:
        """[edge], averaged over rows."""
        return self.values.mean(dim=1)

    @cached_property
    def _place(self) -> dict[Edge, int]:
        return {edge: i for i, edge in enumerate(self.edges)}

    def __getitem__(self, edge: Edge | str) -> Tensor:
        """The scores of one edge, [row]."""
        edge = self.graph.edge(edge)
        if edge not in self._place:
            raise InputError(f"{edge} was not scored")
        return self.values[self._place[edge]]

    def __len__(self) -> int:
        return len(self.edges)

    def strength(self, sign: str = "absolute") -> Tensor:
        """[edge], larger for edges that count more under a sign policy."""
        if sign not in SIGNS:
            raise InputError(f"there is no sign policy {sign!r}; policies are {', '.join(SIGNS)}")
        return self.mean.abs() if sign == "absolute" else self.mean if sign == "positive" else -self.mean

    def top(self, count: int, sign: str = "absolute") -> tuple[Edge, ...]:
        """The edges that count most, best first; ties in the order of the graph.

        The policies "positive" and "negative" leave out scores of the other sign.
        """
        strength = self.strength(sign)
        order = torch.argsort(strength, descending=True, stable=True)[: max(0, count)].tolist()
        return tuple(self.edges[i] for i in order if sign == "absolute" or strength[i] > 0)

    def of(self, edges: Iterable[Edge | str]) -> "EdgeScores":
        """The scores of some of the edges."""
        chosen = self.graph.select(edges)
        rows = [self._place[e] for e in chosen]
        return EdgeScores(
            self.graph, chosen, self.values[rows], self.method, None if self.by_token is None else self.by_token[rows]
        )

    def __str__(self) -> str:
        lines = [f"{self.method}: {len(self.edges)} edges, {self.values.shape[1]} inputs"]
        lines += [f"{float(self.mean[self._place[e]]):+10.4f}  {e}" for e in self.top(10)]
        return "\n".join(lines)

    __repr__ = __str__
