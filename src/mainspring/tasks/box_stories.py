"""Stories of what lies in which box, for a vocabulary of their own.

    told     `apple in A ; coin in C ; drum in B ; box C :`                     -> coin
    moved    `apple in A ; coin in C ; drum in B ; apple to C ; box C :`        -> apple, which lies there last
             `apple in A ; coin in C ; drum in B ; apple to C ; box B :`        -> drum

A story has three to seven objects, each in a box of its own, and asks for any box that is named. Of every object one box is never
taught (`HELD`): no taught story puts it there, and held-out stories ask for just such a pair. Where an object was moved, the box that
it left is never asked for; about half of the questions are for the box that it came to.

What it does not do: a second move, empty boxes, or texts for another vocabulary (`mainspring.tasks.boxes` makes those).
"""

from collections.abc import Mapping
from random import Random
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from mainspring.tasks.item import Item
from mainspring.tasks.stories import Stories, collected, orders
from mainspring.tasks.task import Task

__all__ = ["BOXES", "HELD", "KINDS", "OBJECTS", "WORDS", "Kind", "draw", "stories", "told_boxes"]

Kind: TypeAlias = Literal["told", "moved"]
KINDS: tuple[Kind, ...] = ("told", "moved")
SIZES = (3, 7)
"""The fewest and the most objects of a story."""

OBJECTS = ("apple", "bell", "coin", "drum", "egg", "fan", "glove", "hat", "ink", "jewel", "kite", "lamp")
BOXES = tuple("ABCDEFG")
WORDS = ("<pad>", "<bos>", "in", "to", ";", "box", ":", *OBJECTS, *BOXES)
"""The vocabulary, in the order of its ids."""
INDEX = {word: i for i, word in enumerate(WORDS)}
OBJECT, BOX = INDEX[OBJECTS[0]], INDEX[BOXES[0]]
"""The ids of the first object and the first box."""
HELD = torch.tensor([[(3 * thing + box) % len(BOXES) == 0 for box in range(len(BOXES))] for thing in range(len(OBJECTS))])
"""[object, box]: pairs that no taught story has."""


def draw(
    kind: Kind, count: int, generator: Generator, size: int | None = None, held: bool = False, questions: int = 1
) -> Stories:
    """Random stories of one kind and size (a random one by default): taught ones, or held-out ones, whose answer lies in a box where it
    never lay. With more `questions`, others are asked and answered before the last.
    """
    n = size or int(torch.randint(SIZES[0], SIZES[1] + 1, (), generator=generator))

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        many = 8 * count
        turn = orders(many, n, n, generator)
        parts = {
            "objects": orders(many, len(OBJECTS), n, generator),
            "boxes": orders(many, len(BOXES), n, generator),
            "asked": turn[:, : min(questions, n - 1)],
        }
        if kind == "moved":
            there = torch.rand(many, generator=generator) < 0.4
            parts["mover"] = turn[:, -1]
            parts["into"] = torch.where(
                there, parts["asked"][:, -1], _one(turn, torch.randint(n - 1, (many,), generator=generator))
            )
        pairs = HELD[parts["objects"], parts["boxes"]]
        found = _one(parts["objects"], _answering(parts)[:, -1])
        answered = HELD[found, _one(parts["boxes"], parts["asked"][:, -1])]
        return parts, answered if held else ~(pairs.any(1) | _moved_to_held(parts))

    return stories(**collected(count, drawn))


def stories(objects: Tensor, boxes: Tensor, asked: Tensor, mover: Tensor | None = None, into: Tensor | None = None) -> Stories:
    """Tell stories: objects [row, n] in boxes [row, n], and the question for box number `asked` [row] of the story; or questions
    [row, question], all answered, of which the last is the one that counts.

    With `mover` and `into` [row], object number `mover` is put into box number `into` at last.

    Roles: `object`, `label` and `stop` (its `;`), of the clause that answers; `query`, the box in the question; `end`, the last token.
    """
    count, n = objects.shape

    def word(text: str) -> Tensor:
        return torch.full((count, 1), INDEX[text])

    ids = [word("<bos>")]
    for k in range(n):
        ids += [OBJECT + objects[:, k, None], word("in"), BOX + boxes[:, k, None], word(";")]
    asked = asked.reshape(count, -1)
    parts, clause = {"objects": objects, "boxes": boxes, "asked": asked}, asked[:, -1]
    if mover is not None and into is not None:
        parts |= {"mover": mover, "into": into}
        clause = torch.where(clause == into, n, clause)
        ids += [OBJECT + _one(objects, mover)[:, None], word("to"), BOX + _one(boxes, into)[:, None], word(";")]
    answers = objects.gather(1, _answering(parts))
    for k in range(asked.shape[1]):
        ids += [word(";")] if k else []
        ids += [word("box"), BOX + boxes.gather(1, asked[:, k, None]), word(":"), OBJECT + answers[:, k, None]]
    told = torch.cat(ids, 1)
    last = torch.full_like(clause, told.shape[1] - 2)
    places = {"object": 1 + 4 * clause, "label": 3 + 4 * clause, "stop": 4 + 4 * clause, "query": last - 1, "end": last}
    return Stories(WORDS, told, places, parts)


def _answering(parts: dict[str, Tensor]) -> Tensor:
    """[row, question] the number of the object that answers."""
    if "into" not in parts:
        return parts["asked"]
    return torch.where(parts["asked"] == parts["into"][:, None], parts["mover"][:, None], parts["asked"])


def _moved_to_held(parts: dict[str, Tensor]) -> Tensor:
    if "into" not in parts:
        return torch.zeros(len(parts["asked"]), dtype=torch.bool)
    return HELD[_one(parts["objects"], parts["mover"]), _one(parts["boxes"], parts["into"])]


def _one(values: Tensor, which: Tensor) -> Tensor:
    """values[row, which[row]]."""
    return values.gather(1, which[:, None])[:, 0]


def told_boxes(n: int = 200, seed: int = 0, size: int = 5) -> Task:
    """Stories of one size, in which nothing is moved, as a task: taught and held-out ones alike.

    Variables: the `box` asked for, its `place` in the story, and what lies in each box by its label. Counterfactuals, of equal length:
    "query" asks for another box, "thing" has other objects, "order" tells the same clauses in another order.
    """
    generator, random = torch.Generator().manual_seed(seed), Random(f"box stories/{seed}")
    given = [draw("told", n, generator, size, held) for held in (False, True)]
    items: dict[str, Item] = {}
    while len(items) < n:
        item = _item(given[random.random() < 0.25], random.randrange(n), random)
        items.setdefault(item.clean, item)
    about = "Say what lies in a box, as the story tells."
    source = {"generator": "told_boxes", "n": n, "seed": seed, "size": size}
    return Task("box stories", list(items.values()), about, causal=_causal, source=source)


def _item(given: Stories, row: int, random: Random) -> Item:
    parts = {name: values[row : row + 1] for name, values in given.parts.items()}
    size = parts["objects"].shape[1]
    turn = torch.tensor(random.choice([_turned(size, by) for by in range(1, size)]))
    fresh = [k for k in range(len(OBJECTS)) if k not in parts["objects"][0].tolist()]
    new = torch.tensor([random.sample(fresh, min(size, len(fresh))) + parts["objects"][0].tolist()])[:, :size]
    order = {"objects": parts["objects"][:, turn], "boxes": parts["boxes"][:, turn]}
    order["asked"] = (parts["asked"] - turn[0]) % size
    changed = {
        "query": {"asked": (parts["asked"] + random.randrange(1, size)) % size},
        "thing": {"objects": new},
        "order": order,
    }
    others = {name: _bare(stories(**{**parts, **change})) for name, change in changed.items()}
    return _bare(stories(**parts), others)


def _turned(size: int, by: int) -> list[int]:
    return [(k + by) % size for k in range(size)]


def _bare(given: Stories, others: dict[str, Item] | None = None) -> Item:
    objects, boxes = (given.parts[name][0].tolist() for name in ("objects", "boxes"))
    asked, answer = int(given.parts["asked"][0]), WORDS[int(given.answer[0])]
    holds = {BOXES[box]: OBJECTS[thing] for thing, box in zip(objects, boxes, strict=True)}
    variables = {"box": BOXES[boxes[asked]], "place": str(asked), **holds}
    return given.item(0, variables, [OBJECTS[k] for k in objects if OBJECTS[k] != answer], others)


def _causal(item: Item, values: Mapping[str, str]) -> str:
    held = {**item.variables, **values}
    return f" {held[held['box']]}"
