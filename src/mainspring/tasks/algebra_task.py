"""Sequences of group facts as a task of texts, for any model that knows the symbols.

    , c a = f , a a = d , f c = a , c a =        -> f

What it does not do: the first facts of a sequence, which nothing determines: it asks for the last answer alone.
"""

import torch

from mainspring.tasks.algebra import SYMBOLS, Sequences
from mainspring.tasks.algebra_rules import RULES, diagnostic
from mainspring.tasks.errors import TaskError
from mainspring.tasks.item import Item
from mainspring.tasks.task import Task

__all__ = ["group_facts"]


def group_facts(rule: str = "copy", n: int = 200, seed: int = 0, facts: int = 16, held: bool = False) -> Task:
    """Sequences whose last answer one rule gives: copy, commute, identity, cancel or associate.

    Spans: `x`, `y` and `end` (the last `=`), and with `copy` the `answer` of the first fact that says what is asked. Distractors are the
    other symbols of the group. Counterfactual, with `copy`: "fact", in which every such fact says another symbol, which is its answer.
    """
    if rule not in RULES:
        raise TaskError(f"no rule is called {rule!r}; rules are {', '.join(RULES)}")
    given = diagnostic(rule, n, facts, torch.Generator().manual_seed(seed), held)
    items = {item.clean: item for item in (_item(given, row, rule) for row in range(len(given)))}
    about = f"Say the product of two symbols of a hidden group, by the rule {rule}."
    source = {"generator": "group_facts", "rule": rule, "n": n, "seed": seed, "facts": facts, "held": held}
    return Task(f"algebra, {rule}", list(items.values()), about, source=source)


def _item(given: Sequences, row: int, rule: str) -> Item:
    facts = [(x, y, z) for x, y, z in given.facts[row].tolist()]
    group = [y for x, y in given.products(row) if x == facts[-1][0]]
    if rule != "copy":
        return _bare(facts, group, None)
    *before, (x, y, z) = facts
    first = next(k for k, fact in enumerate(before) if fact[:2] == (x, y))
    wrong = next(symbol for symbol in group if symbol != z)
    told = [(a, b, wrong if (a, b) == (x, y) else c) for a, b, c in facts]
    return _bare(facts, group, first, {"fact": _bare(told, group, first)})


def _bare(facts: list[tuple[int, int, int]], group: list[int], first: int | None, others: dict[str, Item] | None = None) -> Item:
    told = [f", {SYMBOLS[x]} {SYMBOLS[y]} = {SYMBOLS[z]}" for x, y, z in facts]
    text, answer = " ".join(told).rsplit(" ", 1)
    end = len(text)
    spans = {"x": (end - 5, end - 4), "y": (end - 3, end - 2), "end": (end - 1, end)}
    if first is not None:
        begin = sum(len(fact) + 1 for fact in told[:first]) + len(told[first]) - 1
        spans["answer"] = (begin, begin + 1)
    wrong = tuple(f" {SYMBOLS[symbol]}" for symbol in group if SYMBOLS[symbol] != answer)
    variables = {"x": SYMBOLS[facts[-1][0]], "y": SYMBOLS[facts[-1][1]]}
    return Item(text, f" {answer}", others or {}, spans, wrong, variables)
