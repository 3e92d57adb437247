"""Sequences that are predicted by copying from earlier in them: four kinds, as token ids with the places that can be told.

    repeat    S, then stretches of S from anywhere in it: what followed a token follows it again
    reverse   S, then stretches of S backwards, each behind `back`: what stood before a token follows it
    words     a list of two-token words behind numbers, then the same words behind the same numbers in another order, in the
              language that `as-a` or `as-b` asks for, whatever language the list is in
    topic     the words of one topic in random order: each once behind `set`, with replacement behind `bag`

S is of different nonsense tokens. Of the 32 concepts each has a word in both languages; no token is of both, and every token begins
(or ends) four words, so half a word never tells which. Lengths and places are drawn anew, so that no place tells the answer.

What it does not do: make texts of any other vocabulary; counterfactuals are made by `copying_task`.
"""

from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

__all__ = [
    "CONCEPTS",
    "KINDS",
    "LANGUAGES",
    "NONSENSE",
    "NUMBERS",
    "TOPICS",
    "WORDS",
    "Batch",
    "Kind",
    "draw",
    "ids_of",
    "lists",
    "text_of",
]

Kind: TypeAlias = Literal["repeat", "reverse", "words", "topic"]
KINDS: tuple[Kind, ...] = ("repeat", "reverse", "words", "topic")

SPECIAL = ("<pad>", "<bos>", "again", "back", "as-a", "as-b", "set", "bag")


def _syllables(consonants: str) -> tuple[str, ...]:
    return tuple(consonant + vowel for consonant in consonants for vowel in "aeio")


NONSENSE = _syllables("bdfgklmn")
NUMBERS = ("1", "2", "3", "4", "5")
HALVES = {"a": (_syllables("ts"), _syllables("rv")), "b": (_syllables("pz"), _syllables("hj"))}
"""language -> tokens that begin its words, tokens that end them."""
TOPICS = tuple(
    tuple(line.split())
    for line in (
        "apple pear plum fig grape peach lemon melon",
        "horse cow sheep goat pig dog cat hen",
        "iron gold silver copper tin lead zinc nickel",
        "hammer saw drill axe file rasp plane chisel",
        "robin crow owl heron swan duck lark finch",
        "red blue green black white grey brown pink",
    )
)
CONCEPTS = 32
WORDS = (
    *SPECIAL,
    *NONSENSE,
    *NUMBERS,
    *(half for language in HALVES.values() for halves in language for half in halves),
    *(word for topic in TOPICS for word in topic),
)
"""The vocabulary, in the order of its ids."""
INDEX = {word: i for i, word in enumerate(WORDS)}


def _language(name: str, order: list[int]) -> tuple[tuple[str, str], ...]:
    first, second = HALVES[name]
    return tuple((first[slot // 4], second[(slot // 4 + 2 * (slot % 4)) % 8]) for slot in order)


LANGUAGES = {
    "a": _language("a", list(range(CONCEPTS))),
    "b": _language("b", Random(7).sample(range(CONCEPTS), CONCEPTS)),
}
"""language -> the two tokens of every concept's word; the two languages order their concepts differently."""


def ids_of(words: str) -> list[int]:
    """Token ids of words with spaces between them."""
    return [INDEX[word] for word in words.split()]


def text_of(ids: Tensor) -> str:
    """The words of one row of ids, without `<bos>`."""
    return " ".join(WORDS[i] for i in ids.tolist() if WORDS[i] != "<bos>")


_NONSENSE = torch.tensor([INDEX[word] for word in NONSENSE])
_NUMBERS = torch.tensor([INDEX[word] for word in NUMBERS])
_TOPICS = torch.tensor([[INDEX[word] for word in topic] for topic in TOPICS])
_WORDS = torch.tensor([[[INDEX[half] for half in word] for word in LANGUAGES[name]] for name in "ab"])
"""[language, concept, half]."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one kind and one length.

    ids        [row, pos], with `<bos>` in front (some of `repeat` without)
    wanted     [row, pos] tokens that can be told from what stands before them
    source     [row, pos] for a wanted token of repeat, reverse and words: where the token or word that it repeats stands; of a
               word, its last token. -1 elsewhere
    concept    [row, pos] the concept of a token of a word, -1 elsewhere
    """

    kind: Kind
    ids: Tensor
    wanted: Tensor
    source: Tensor
    concept: Tensor


def draw(kind: Kind, count: int, generator: Generator, size: int | None = None) -> Batch:
    """A batch of one kind; `size` is the length of S, or of the list of words (drawn for the batch by default)."""
    if kind == "repeat":
        return _stretches(count, generator, size, backwards=False)
    if kind == "reverse":
        return _stretches(count, generator, size, backwards=True)
    return _lists(count, generator, size) if kind == "words" else _topics(count, generator)


def _between(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _orders(count: int, among: int, generator: Generator) -> Tensor:
    """[count, among] a random order in every row."""
    return torch.rand(count, among, generator=generator).argsort(1)


def _stretches(count: int, generator: Generator, size: int | None, backwards: bool) -> Batch:
    length = size or _between(5, 18, generator)
    pieces, longest = _between(1, 2, generator), min(length, 14)
    marked = backwards or _between(0, 1, generator) == 1
    opened = backwards or _between(0, 3, generator) > 0
    first = _NONSENSE[_orders(count, len(_NONSENSE), generator)[:, :length]]
    ids, wanted, source = [first], [torch.zeros_like(first)], [torch.full_like(first, -1)]
    if opened:
        one = torch.ones(count, 1, dtype=torch.long)
        ids.insert(0, one * INDEX["<bos>"])
        wanted.insert(0, one * 0)
        source.insert(0, -one)
    for _ in range(pieces):
        width = _between(3, longest, generator)
        start = torch.randint(0, length - width + 1, (count, 1), generator=generator)
        places = start + torch.arange(width)
        places = places.flip(1) if backwards else places
        mark = torch.full((count, int(marked)), INDEX["back" if backwards else "again"])
        told = torch.ones(count, width, dtype=torch.long)
        told[:, 0] = 0
        ids += [mark, first.gather(1, places)]
        wanted += [mark * 0, told]
        source += [mark * 0 - 1, torch.where(told > 0, places + int(opened), -1)]
    whole = torch.cat(ids, 1)
    return Batch(
        "reverse" if backwards else "repeat",
        whole,
        torch.cat(wanted, 1).bool(),
        torch.cat(source, 1),
        torch.full_like(whole, -1),
    )


def _lists(count: int, generator: Generator, size: int | None) -> Batch:
    length = size or _between(2, 5, generator)
    concepts = _orders(count, CONCEPTS, generator)[:, :length]
    numbers = _orders(count, len(NUMBERS), generator)[:, :length]
    again = _orders(count, length, generator)
    spoken, asked = torch.randint(2, (2, count), generator=generator)
    return lists(concepts, numbers, again, spoken, asked)


def lists(concepts: Tensor, numbers: Tensor, again: Tensor, spoken: Tensor, asked: Tensor) -> Batch:
    """A batch of "words": `concepts` behind `numbers` (both [row, n]), said again in the order `again` [row, n].

    `spoken` and `asked` [row] are the languages of the list and of its repetition: 0 for "a", 1 for "b".
    """
    count, length = concepts.shape

    def entries(language: Tensor, concept: Tensor, number: Tensor) -> Tensor:
        return torch.cat([_NUMBERS[number][..., None], _WORDS[language[:, None], concept]], -1).flatten(1)

    ids = torch.cat(
        [
            torch.full((count, 1), INDEX["<bos>"]),
            entries(spoken, concepts, numbers),
            torch.where(asked[:, None] == 0, INDEX["as-a"], INDEX["as-b"]),
            entries(asked, concepts.gather(1, again), numbers.gather(1, again)),
        ],
        1,
    )
    half = torch.tensor([False, True, True]).repeat(length)
    nothing = torch.full((count, 1), -1)
    shown, repeated = (c.repeat_interleave(3, 1).where(half, -1) for c in (concepts, concepts.gather(1, again)))
    last = (3 + 3 * again).repeat_interleave(3, 1).where(half, -1)
    front = 2 + 3 * length
    wanted = torch.cat([torch.zeros(count, front, dtype=torch.bool), half.expand(count, -1)], 1)
    source = torch.cat([torch.full((count, front), -1), last], 1)
    return Batch("words", ids, wanted, source, torch.cat([nothing, shown, nothing, repeated], 1))


def _topics(count: int, generator: Generator) -> Batch:
    topic = torch.randint(len(TOPICS), (count,), generator=generator)
    once = torch.randint(2, (count, 1), generator=generator)
    width = _TOPICS.shape[1]
    order = torch.where(once == 1, _orders(count, width, generator), torch.randint(width, (count, width), generator=generator))
    mark = torch.where(once == 1, INDEX["set"], INDEX["bag"])
    ids = torch.cat([torch.full((count, 1), INDEX["<bos>"]), mark, _TOPICS[topic].gather(1, order)], 1)
    wanted = torch.ones_like(ids, dtype=torch.bool)
    wanted[:, :3] = False
    nothing = torch.full_like(ids, -1)
    return Batch("topic", ids, wanted, nothing, nothing)
