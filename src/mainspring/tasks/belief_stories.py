"""Stories of who believes what is in which container, for a vocabulary of their own.

    mute      `ann fills mug with tea ; bob fills jar with milk ; ann thinks mug :`                   -> tea
    misses    `ann fills mug with tea ; bob fills jar with milk ; ann misses bob ; ann thinks jar :`  -> unknown
    sees      `ann fills mug with tea ; bob fills jar with milk ; ann sees bob ; ann thinks jar :`    -> milk

Two people fill a container each. Who is asked about knows what they filled themselves, and what the other filled if they see them.
Nothing said of who sees whom is as good as `misses`. Of every container one drink is never taught (`HELD`): no taught story pours it
there, and held-out stories ask for just such a container.

What it does not do: beliefs about beliefs, or contents that change.
"""

from collections.abc import Mapping
from random import Random
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from mainspring.tasks.item import Item
from mainspring.tasks.stories import Stories, collected, orders
from mainspring.tasks.task import Task

__all__ = ["CONTAINERS", "DRINKS", "HELD", "PEOPLE", "SIGHTS", "UNKNOWN", "WORDS", "Sight", "beliefs", "draw", "stories"]

Sight: TypeAlias = Literal["mute", "misses", "sees"]
SIGHTS: tuple[Sight, ...] = ("mute", "misses", "sees")

PEOPLE = ("ann", "bob", "cid", "dora", "emil", "fay", "gus", "hana")
CONTAINERS = ("mug", "jar", "cup", "bowl", "vase", "pot", "can", "tub")
DRINKS = ("tea", "milk", "juice", "wine", "water", "beer", "cocoa", "soup")
SPECIAL = ("<pad>", "<bos>", "fills", "with", ";", "sees", "misses", "thinks", ":", "unknown")
WORDS = (*SPECIAL, *PEOPLE, *CONTAINERS, *DRINKS)
"""The vocabulary, in the order of its ids."""
INDEX = {word: i for i, word in enumerate(WORDS)}
PERSON, CONTAINER, DRINK = (INDEX[words[0]] for words in (PEOPLE, CONTAINERS, DRINKS))
"""The ids of the first person, container and drink."""
UNKNOWN = INDEX["unknown"]
HELD = torch.tensor([[(3 * container + drink) % 8 == 0 for drink in range(8)] for container in range(8)])
"""[container, drink]: pairs that no taught story has."""


def draw(sight: Sight, count: int, generator: Generator, held: bool = False, questions: int = 1) -> Stories:
    """Random stories of one kind: taught ones, or held-out ones, which ask for a container with a drink that it never held. With more
    `questions`, up to four, others are asked and answered before the last.
    """

    def drawn() -> tuple[dict[str, Tensor], Tensor]:
        many = 8 * count
        asked = orders(many, 4, questions, generator)
        parts = {
            "people": orders(many, len(PEOPLE), 2, generator),
            "containers": orders(many, len(CONTAINERS), 2, generator),
            "drinks": orders(many, len(DRINKS), 2, generator),
            "watcher": torch.randint(2, (many,), generator=generator),
            "thinker": asked // 2,
            "asked": asked % 2,
        }
        poured = HELD[parts["containers"], parts["drinks"]]
        return parts, poured.gather(1, parts["asked"][:, -1:])[:, 0] if held else ~poured.any(1)

    return stories(sight, **collected(count, drawn))


def stories(
    sight: Sight, people: Tensor, containers: Tensor, drinks: Tensor, watcher: Tensor, thinker: Tensor, asked: Tensor
) -> Stories:
    """Tell stories: people, containers and drinks [row, 2]; person number `watcher` [row] sees or misses the other; the question is what
    person number `thinker` [row] thinks of container number `asked` [row]; or questions [row, question], of which the last counts.

    Roles: `person`, `container`, `drink` and `stop` (its `;`) of the clause of the container asked for; `other drink` and `other stop`;
    `watcher`, `sight` (the verb), `watched` and `sight stop`, where somebody sees or misses somebody; `thinker` and `query` in the
    question; `end`, the prompt's last token. `parts["pointer"]` says what answers: 0 or 1, a clause, or 2, which is `unknown`.
    """
    count = len(people)
    thinker, asked = thinker.reshape(count, -1), asked.reshape(count, -1)

    def word(text: str) -> Tensor:
        return torch.full((count, 1), INDEX[text])

    ids = [word("<bos>")]
    for k in range(2):
        ids += [PERSON + people[:, k, None], word("fills"), CONTAINER + containers[:, k, None]]
        ids += [word("with"), DRINK + drinks[:, k, None], word(";")]
    if sight != "mute":
        ids += [PERSON + people.gather(1, watcher[:, None]), word(sight)]
        ids += [PERSON + people.gather(1, 1 - watcher[:, None]), word(";")]
    knows = (thinker == asked) | ((watcher[:, None] == thinker) & (sight == "sees"))
    pointer = torch.where(knows, asked, 2)
    said = torch.cat([DRINK + drinks, word("unknown")], 1).gather(1, pointer)
    for k in range(asked.shape[1]):
        ids += [word(";")] if k else []
        ids += [PERSON + people.gather(1, thinker[:, k, None]), word("thinks")]
        ids += [CONTAINER + containers.gather(1, asked[:, k, None]), word(":"), said[:, k, None]]
    told = torch.cat(ids, 1)
    clause, last = 6 * asked[:, -1], torch.full((count,), told.shape[1] - 2)
    places = {"person": 1 + clause, "container": 3 + clause, "drink": 5 + clause, "stop": 6 + clause}
    places |= {"other drink": 11 - clause, "other stop": 12 - clause}
    if sight != "mute":
        places |= {role: torch.full_like(last, 13 + k) for k, role in enumerate(("watcher", "sight", "watched", "sight stop"))}
    places |= {"thinker": last - 3, "query": last - 1, "end": last}
    parts = {"people": people, "containers": containers, "drinks": drinks, "watcher": watcher, "thinker": thinker, "asked": asked}
    return Stories(WORDS, told, places, {**parts, "pointer": pointer})


def beliefs(n: int = 200, seed: int = 0) -> Task:
    """Stories of all three kinds as a task, taught and held-out ones alike.

    Variables: the `pointer` (`first`, `second` or `unknown`) and the drinks of both clauses. Counterfactuals, of equal length: "drink"
    pours other drinks, "clauses" tells the two clauses in the other order, "thinker" asks about the other person, "sight" has the other
    of sees and misses (the stories that say neither have no such counterfactual).
    """
    generator, random = torch.Generator().manual_seed(seed), Random(f"belief stories/{seed}")
    given = {(sight, held): draw(sight, n, generator, held) for sight in SIGHTS for held in (False, True)}
    items: dict[str, Item] = {}
    while len(items) < n:
        sight = random.choice(SIGHTS)
        item = _item(sight, given[sight, random.random() < 0.25], random.randrange(n), random)
        items.setdefault(item.clean, item)
    about = "Say what somebody thinks is in a container."
    source = {"generator": "beliefs", "n": n, "seed": seed}
    return Task("belief stories", list(items.values()), about, causal=_causal, source=source)


def _item(sight: Sight, given: Stories, row: int, random: Random) -> Item:
    parts = {name: values[row : row + 1] for name, values in given.parts.items() if name != "pointer"}
    fresh = [k for k in range(len(DRINKS)) if k not in parts["drinks"][0].tolist()]
    swapped = {name: parts[name].flip(1) for name in ("people", "containers", "drinks")}
    swapped |= {name: 1 - parts[name] for name in ("watcher", "thinker", "asked")}
    told: dict[str, Stories] = {
        "drink": stories(sight, **{**parts, "drinks": torch.tensor([random.sample(fresh, 2)])}),
        "clauses": stories(sight, **swapped),
        "thinker": stories(sight, **{**parts, "thinker": 1 - parts["thinker"]}),
    }
    if sight != "mute":
        told["sight"] = stories("misses" if sight == "sees" else "sees", **parts)
    return _bare(stories(sight, **parts), {name: _bare(other) for name, other in told.items()})


def _bare(given: Stories, others: dict[str, Item] | None = None) -> Item:
    first, second = (DRINKS[k] for k in given.parts["drinks"][0].tolist())
    answer = WORDS[int(given.answer[0])]
    variables = {"pointer": ("first", "second", "unknown")[int(given.parts["pointer"][0, -1])], "first": first, "second": second}
    return given.item(0, variables, [word for word in (first, second, "unknown") if word != answer], others)


def _causal(item: Item, values: Mapping[str, str]) -> str:
    held = {**item.variables, **values}
    return f" {held.get(held['pointer'], 'unknown')}"
