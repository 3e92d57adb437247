"""Stories as token ids, with the places of their roles: what the tasks of box stories and belief stories share.

    ids      [row, pos]  <bos>, the story, the question, and the answer as the last token
    places   role -> [row] position of the role's token, -1 in a row that has none
    parts    what was drawn, by name, so that a story can be told again with one thing changed

What it does not do: stories of different lengths in one batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mainspring.tasks.item import Item

__all__ = ["Stories", "collected", "orders"]


@dataclass(frozen=True, eq=False)
class Stories:
    """Rows of one length, told with the same words of a vocabulary."""

    words: tuple[str, ...]
    ids: Tensor
    places: dict[str, Tensor]
    parts: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def prompt(self) -> Tensor:
        """[row, pos] without the answer."""
        return self.ids[:, :-1]

    @property
    def answer(self) -> Tensor:
        """[row] the token that answers."""
        return self.ids[:, -1]

    def text(self, row: int) -> str:
        """A prompt in words, without `<bos>`."""
        return " ".join(self.words[i] for i in self.ids[row, 1:-1].tolist())

    def item(
        self, row: int, variables: Mapping[str, str], distractors: Sequence[str], others: Mapping[str, Item] | None = None
    ) -> Item:
        """A row as an item of a task: the spans are its roles."""
        told = self.text(row).split()
        begins = [sum(map(len, told[:k])) + k for k in range(len(told))]
        at = {role: int(place[row]) - 1 for role, place in self.places.items()}
        spans = {role: (begins[k], begins[k] + len(told[k])) for role, k in at.items() if k >= 0}
        wrong = tuple(f" {word}" for word in distractors)
        return Item(self.text(row), f" {self.words[int(self.answer[row])]}", others or {}, spans, wrong, variables)


def orders(count: int, among: int, taken: int, generator: Generator) -> Tensor:
    """[row, taken] that many of `among` things in a random order, row by row."""
    return torch.rand(count, among, generator=generator).argsort(1)[:, :taken]


def collected(count: int, draw: Callable[[], tuple[dict[str, Tensor], Tensor]]) -> dict[str, Tensor]:
    """Draw parts until `count` rows of them were kept; `draw` gives parts and which of their rows are to be kept."""
    kept: list[dict[str, Tensor]] = []
    while sum(len(next(iter(parts.values()))) for parts in kept) < count:
        parts, wanted = draw()
        kept.append({name: values[wanted] for name, values in parts.items()})
    return {name: torch.cat([parts[name] for parts in kept])[:count] for name in kept[0]}
