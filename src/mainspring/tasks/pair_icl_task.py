"""Functions told by examples, and items picked from a list, as tasks with counterfactuals: the prompts of `pair_icl`, one by one.

What it does not do: the other kinds of prompts; `pair_icl.draw` gives batches of all.
"""

from random import Random

from mainspring.tasks.item import Item
from mainspring.tasks.pair_icl import CATEGORIES, FUNCTIONS, ITEMS, NAMES, SYMBOLS
from mainspring.tasks.task import Task

__all__ = ["filtering", "functions"]


def functions(n: int = 200, seed: int = 0, shots: int = 5) -> Task:
    """Examples of a function and a query that is not among them: what the function gives.

    Counterfactuals: "task" shows the same symbols under another function, "query" asks for another symbol. Spans: "examples", "query".
    Variables: task and query.
    """
    random, items = Random(f"functions/{seed}"), dict[str, Item]()
    while len(items) < n:
        task, other = random.sample(range(len(NAMES)), 2)
        *shown, query, spare = random.sample(range(len(SYMBOLS)), shots + 2)
        if FUNCTIONS[task][query] == FUNCTIONS[other][query]:
            continue
        others = {"task": _examples(other, shown, query), "query": _examples(task, shown, spare)}
        item = _examples(task, shown, query, others)
        items.setdefault(item.clean, item)
    about = "Apply the function that the examples follow."
    return Task("functions", list(items.values()), about, source={"generator": "functions", "n": n, "seed": seed, "shots": shots})


def filtering(n: int = 200, seed: int = 0, size: int = 5) -> Task:
    """A list of items, each of another category, and a category: the item that belongs to it.

    Counterfactuals: "category" asks for another that is there, "list" has other items of the same categories in another order. Spans:
    "item", "category". Variables: the category and, by place, the items.
    """
    random, items = Random(f"filtering/{seed}"), dict[str, Item]()
    while len(items) < n:
        groups = random.sample(range(len(CATEGORIES)), size)
        listed, fresh = ([random.choice(ITEMS[g]) for g in order] for order in (groups, random.sample(groups, size)))
        asked, other = random.sample(groups, 2)
        if set(listed) & set(fresh):
            continue
        others = {"category": _list(listed, other), "list": _list(fresh, asked)}
        item = _list(listed, asked, others)
        items.setdefault(item.clean, item)
    about = "Say the one item of a list that is of the category."
    return Task("filtering", list(items.values()), about, source={"generator": "filtering", "n": n, "seed": seed, "size": size})


def _examples(task: int, shown: list[int], query: int, others: dict[str, Item] | None = None) -> Item:
    told = " ".join(f"{SYMBOLS[x]} : {SYMBOLS[FUNCTIONS[task][x]]} ;" for x in shown)
    symbol, answer = SYMBOLS[query], SYMBOLS[FUNCTIONS[task][query]]
    spans = {"examples": (0, len(told)), "query": (len(told) + 1, len(told) + 1 + len(symbol))}
    rivals = dict.fromkeys(SYMBOLS[function[query]] for function in FUNCTIONS)
    wrong = tuple(f" {rival}" for rival in rivals if rival != answer)
    return Item(f"{told} {symbol} :", f" {answer}", others or {}, spans, wrong, {"task": NAMES[task], "query": symbol})


def _list(listed: list[str], asked: int, others: dict[str, Item] | None = None) -> Item:
    (answer,) = set(listed) & set(ITEMS[asked])
    front, category = f"list {' '.join(listed)} which ", CATEGORIES[asked]
    start = sum(len(word) + 1 for word in ["list", *listed[: listed.index(answer)]])
    spans = {"item": (start, start + len(answer)), "category": (len(front), len(front) + len(category))}
    wrong = tuple(f" {item}" for item in listed if item != answer)
    variables = {"category": category, **{f"item {i}": item for i, item in enumerate(listed)}}
    return Item(f"{front}{category} :", f" {answer}", others or {}, spans, wrong, variables)
