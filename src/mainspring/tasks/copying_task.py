"""Prompts to be continued by copying, as a task with counterfactuals: the sequences of `copying`, cut where a token can be told.

What it does not do: the topics, where several words are right.
"""

from random import Random
from typing import Literal

import torch
from torch import Tensor

from mainspring.tasks.copying import CONCEPTS, LANGUAGES, NONSENSE, WORDS, Batch, draw, ids_of
from mainspring.tasks.item import Item
from mainspring.tasks.task import Task

__all__ = ["copying"]

COPIED = frozenset(NONSENSE) | {half for words in LANGUAGES.values() for word in words for half in word}


def copying(n: int = 200, seed: int = 0, kind: Literal["repeat", "reverse", "words"] = "repeat") -> Task:
    """Prompts of one kind up to a token that can be told from what stands before it.

    Counterfactual "source": another token (in `words` another word of the same language) stands wherever the answer's token (or word)
    stood. Spans: "source", where the answer is copied from (in `words` the last token of the word), and "query", the last token.
    Variables: the answer, and in `words` its concept.
    """
    random, generator = Random(f"copying/{kind}/{seed}"), torch.Generator().manual_seed(seed)
    items: dict[str, Item] = {}
    while len(items) < n:
        batch = draw(kind, 1, generator)
        if WORDS[int(batch.ids[0, 0])] != "<bos>":
            continue  # a tokenizer puts it in front of every text
        place = random.choice(batch.wanted[0].nonzero()[:, 0].tolist())
        concept = int(batch.concept[0, place])
        if kind == "words":
            spare = random.choice(_unlike(concept, set(batch.concept[0].tolist())))
            other = _item(batch, _with_word(batch, concept, spare), place, spare)
        else:
            spare = random.choice(sorted(set(ids_of(" ".join(NONSENSE))) - set(batch.ids[0].tolist())))
            other = _item(batch, batch.ids[0].where(batch.ids[0] != batch.ids[0, place], spare), place, -1)
        item = _item(batch, batch.ids[0], place, concept, {"source": other})
        items.setdefault(item.clean, item)
    about = "Say what stood before: what followed or preceded a token, or the word of a number, in the language asked for."
    return Task(
        f"copying-{kind}", list(items.values()), about, source={"generator": "copying", "n": n, "seed": seed, "kind": kind}
    )


def _unlike(concept: int, shown: set[int]) -> list[int]:
    """The concepts that are not shown and whose words share no token with those of `concept`."""
    return [c for c in range(CONCEPTS) if c not in shown and all(not set(w[c]) & set(w[concept]) for w in LANGUAGES.values())]


def _with_word(batch: Batch, concept: int, spare: int) -> Tensor:
    """[pos] the row with every word of a concept replaced by that of another in the same language."""
    ids, said = batch.ids[0].clone(), batch.concept[0].tolist()
    for place in range(1, len(said)):
        if said[place] == concept == said[place - 1]:
            pair = tuple(WORDS[i] for i in batch.ids[0, place - 1 : place + 1].tolist())
            words = next(words for words in LANGUAGES.values() if words[concept] == pair)
            ids[place - 1 : place + 1] = torch.tensor(ids_of(" ".join(words[spare])))
    return ids


def _item(batch: Batch, ids: Tensor, place: int, concept: int, others: dict[str, Item] | None = None) -> Item:
    words = [WORDS[i] for i in ids[1:].tolist()]  # without <bos>: the token at `place` is words[place - 1]
    answer, words = words[place - 1], words[: place - 1]
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    spans = {
        role: (starts[i], starts[i] + len(words[i]))
        for role, i in (("source", int(batch.source[0, place]) - 1), ("query", place - 2))
    }
    wrong = tuple(f" {word}" for word in dict.fromkeys(words) if word in COPIED and word != answer)
    variables = {"answer": answer} | ({"concept": str(concept)} if concept >= 0 else {})
    return Item(" ".join(words), f" {answer}", others or {}, spans, wrong, variables)
