"""Tasks that only the context tells, as token ids: which function, which category, which label.

    shots      `x : y ; x : y ; ... x :` for one of ten functions, each a fixed permutation of the same 24 symbols
    named      `NAME x :` with the function's name in place of examples
    name       `x : y ; ... # :`, whose answer is the name of the function that the examples follow
    plain      `x :` alone: any function may be meant
    which      `list a b c which CATEGORY :`, whose answer is the one item of that category
    first      the same with the question before the list
    classify   `a : l ; b : m ; a : l ; ... b :` with labels that are drawn anew for every row

The examples name no function, so from them to an answer there is only a variable for the task. Numbers of examples and items, and their
places, are drawn anew.

What it does not do: make texts of any other vocabulary.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from mainspring.tasks.copying import TOPICS

__all__ = ["CATEGORIES", "FUNCTIONS", "ITEMS", "KINDS", "LABELS", "NAMES", "SYMBOLS", "WORDS", "Batch", "Kind", "draw", "token"]

Kind: TypeAlias = Literal["shots", "named", "name", "plain", "which", "first", "classify"]
KINDS: tuple[Kind, ...] = ("shots", "named", "name", "plain", "which", "first", "classify")

SPECIAL = ("<pad>", "<bos>", ":", ";", "#", "list", "which")
SYMBOLS = tuple(consonant + vowel for consonant in "bdgklm" for vowel in "aeio")
NAMES = ("turn", "lift", "fold", "spin", "mix", "trim", "bend", "melt", "rush", "lock")
CATEGORIES = ("fruit", "beast", "metal", "tool", "bird", "colour")
ITEMS = tuple(topic[:6] for topic in TOPICS)
LABELS = ("north", "south", "east", "west", "up")
WORDS = (*SPECIAL, *SYMBOLS, *NAMES, *CATEGORIES, *LABELS, *(word for items in ITEMS for word in items))
"""The vocabulary, in the order of its ids."""
INDEX = {word: i for i, word in enumerate(WORDS)}


def _permutations() -> tuple[tuple[int, ...], ...]:
    random = Random(11)
    return tuple(tuple(random.sample(range(len(SYMBOLS)), len(SYMBOLS))) for _ in NAMES)


FUNCTIONS = _permutations()
"""[function][symbol] -> symbol."""

_FUNCTIONS = torch.tensor(FUNCTIONS)
_SYMBOL, _NAME, _CATEGORY = INDEX[SYMBOLS[0]], INDEX[NAMES[0]], INDEX[CATEGORIES[0]]
_LABEL, _ITEM, _EACH = INDEX[LABELS[0]], INDEX[ITEMS[0][0]], len(ITEMS[0])


def token(word: str) -> int:
    """The id of a word."""
    return INDEX[word]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one kind and one length; the answer is the last token of a row, and ":" the one before it.

    ids      [row, pos] with `<bos>` in front
    wanted   [row, pos] tokens that can be told from what stands before them
    task     [row] function, category or label that is asked for
    query    [row] symbol of the query, or -1
    place    [row] position of the answer's earlier token in a list or among labels, or -1
    """

    kind: Kind
    ids: Tensor
    wanted: Tensor
    task: Tensor
    query: Tensor
    place: Tensor

    @property
    def prompt(self) -> Tensor:
        """The rows without their answer."""
        return self.ids[:, :-1]

    @property
    def answer(self) -> Tensor:
        """[row] the id of the answer."""
        return self.ids[:, -1]


def draw(kind: Kind, count: int, generator: Generator, size: int | None = None, task: Tensor | None = None) -> Batch:
    """A batch of one kind; `size` is the number of examples, items or questions, `task` [row] the functions or categories asked for."""
    if kind in ("which", "first"):
        return _listed(kind, count, generator, size, task)
    if kind == "classify":
        return _classified(count, generator, size)
    return _functional(kind, count, generator, size, task)


def _between(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _orders(count: int, among: int, generator: Generator) -> Tensor:
    return torch.rand(count, among, generator=generator).argsort(1)


def _column(count: int, word: str) -> Tensor:
    return torch.full((count, 1), INDEX[word])


def _functional(kind: Kind, count: int, generator: Generator, size: int | None, task: Tensor | None) -> Batch:
    shots = (size or _between(1 if kind == "shots" else 2, 8, generator)) if kind in ("shots", "name") else 0
    task = torch.randint(len(NAMES), (count,), generator=generator) if task is None else task
    symbols = _orders(count, len(SYMBOLS), generator)[:, : shots + 1]
    answers = _FUNCTIONS[task[:, None], symbols]
    parts = [_column(count, "<bos>")]
    if kind == "named":
        parts.append(_NAME + task[:, None])
    told = [0] * len(parts)
    for i in range(shots):
        parts += [_SYMBOL + symbols[:, i, None], _column(count, ":"), _SYMBOL + answers[:, i, None], _column(count, ";")]
        told += [0, 0, int(i > 0), 0]
    if kind == "name":
        query, last = _column(count, "#"), _NAME + task[:, None]
    else:
        query, last = _SYMBOL + symbols[:, -1:], _SYMBOL + answers[:, -1:]
    ids = torch.cat([*parts, query, _column(count, ":"), last], 1)
    wanted = torch.tensor([*told, 0, 0, 1]).bool().expand(count, -1)
    nothing = torch.full((count,), -1)
    return Batch(kind, ids, wanted, task, nothing if kind == "name" else symbols[:, -1], nothing)


def _listed(kind: Kind, count: int, generator: Generator, size: int | None, task: Tensor | None) -> Batch:
    length = size or _between(2, 6, generator)
    groups = _orders(count, len(CATEGORIES), generator)
    if task is not None:  # the category asked for goes to the front, to be shuffled among those that are shown
        rest = groups[groups != task[:, None]].reshape(count, -1)
        groups = torch.cat([task[:, None], rest], 1)
    groups = groups[:, :length]
    order = _orders(count, length, generator)
    asked, groups = groups[:, 0], groups.gather(1, order)
    at = order.argmin(1)
    items = _ITEM + groups * _EACH + torch.randint(_EACH, groups.shape, generator=generator)
    question = torch.cat([_column(count, "which"), _CATEGORY + asked[:, None]], 1)
    listed = torch.cat([_column(count, "list"), items], 1)
    whole = [listed, question] if kind == "which" else [question, listed]
    ids = torch.cat([_column(count, "<bos>"), *whole, _column(count, ":"), items.gather(1, at[:, None])], 1)
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, -1] = True
    return Batch(kind, ids, wanted, asked, torch.full((count,), -1), at + (2 if kind == "which" else 4))


def _classified(count: int, generator: Generator, size: int | None) -> Batch:
    classes = _ITEM + _orders(count, len(ITEMS) * _EACH, generator)[:, :2]
    labels = _LABEL + _orders(count, len(LABELS), generator)[:, :2]
    questions = size or _between(1, 5, generator)
    asked = torch.cat([torch.tensor([[0, 1]]).expand(count, -1), torch.randint(2, (count, questions), generator=generator)], 1)
    parts = [_column(count, "<bos>")]
    for which in asked.T:
        item, label = (each.gather(1, which[:, None]) for each in (classes, labels))
        parts += [item, _column(count, ":"), label, _column(count, ";")]
    ids = torch.cat(parts[:-1], 1)
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, 11::4] = True
    return Batch("classify", ids, wanted, ids[:, -1] - _LABEL, torch.full((count,), -1), 3 + 4 * asked[:, -1])
