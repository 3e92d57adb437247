"""Rules on facts: by hand, against a search of their own kind, and diagnostic sequences that one rule alone answers, a thousand each."""

import pytest
import torch

from mainspring.tasks.algebra import HELD, SYMBOLS, WORLDS, draw
from mainspring.tasks.algebra_rules import RULES, associate, cancel, commute, copied, coverage, diagnostic, identity, rule_of
from mainspring.tasks.algebra_task import group_facts
from mainspring.tasks.errors import TaskError

C3 = [(a, b, (a + b) % 3) for a in range(3) for b in range(3)]


def test_rules_by_hand():
    known = [(1, 2, 0), (2, 2, 1)]
    assert (copied(known, 1, 2), copied(known, 2, 1)) == (0, None)
    assert (commute(known, 2, 1), commute(known, 2, 2), commute(known, 1, 2)) == (0, None, None)
    assert identity([(1, 0, 1)], 0, 2) == 2 == identity([(0, 1, 1)], 2, 0)
    assert identity([(0, 0, 0)], 0, 2) == 2 and identity([(1, 2, 0)], 0, 2) is None
    assert cancel([(1, 0, 1), (1, 1, 2)], 1, 2) == 0  # row 1: of 0, 1, 2 the products 1 and 2 are taken
    assert cancel([(1, 0, 1)], 1, 2) == 0 and cancel([], 1, 2) is None  # of 0 and 1 alone: the group is not known to be larger
    assert associate([(1, 1, 2), (1, 2, 3), (1, 3, 4)], 2, 2) == 4  # (1 1) 2 = 1 (1 2)
    assert associate([(1, 1, 2), (1, 2, 3)], 2, 2) is None
    assert rule_of(C3, (1, 2, 0)) == "copy" and rule_of([], (1, 2, 0)) is None
    assert rule_of([(1, 2, 2)], (1, 2, 0)) is None  # a rule that gives another answer explains nothing


def test_rules_are_never_wrong_where_they_cannot_be():
    given = draw(64, 20, torch.Generator().manual_seed(0))
    for row in range(64):
        facts, true = [tuple(f) for f in given.facts[row].tolist()], given.products(row)
        abelian = WORLDS[int(given.world[row])].abelian
        for k, (x, y, _) in enumerate(facts):
            for name, rule in RULES.items():
                found = rule(facts[:k], x, y)
                if name != "cancel" and (name != "commute" or abelian):
                    assert found in (None, true[x, y])


# ---- checkers of the test's own --------------------------------------------------------------------------------------------------------


def follows(rule, facts, x, y, true):
    """Whether the answer follows by a rule, found by looking at every table that the rule allows; a search unlike the rules' own."""
    z = true[x, y]
    told = set(facts)
    if rule == "copy":
        return (x, y, z) in told
    if rule == "commute":
        return x != y and (y, x, z) in told
    if rule == "identity":
        units = {e for e in (x, y) if any((a, e, a) in told or (e, a, a) in told for a in range(8))}
        return bool(units)
    if rule == "cancel":
        seen = {s for a, b, c in told if a == x or b == y for s in (a, b, c)}
        free = [s for s in seen if not any((a == x or b == y) and c == s for a, b, c in told)]
        return free == [z]
    for a in range(8):
        for b in range(8):
            for c in range(8):
                for d in range(8):
                    if {(a, b, x), (b, y, c), (a, c, d)} <= told or {(a, b, y), (x, a, c), (c, b, d)} <= told:
                        return True
    return False


@pytest.mark.parametrize("rule", list(RULES))
def test_a_thousand_diagnostic_answers_follow_by_their_rule_and_by_no_earlier_one(rule):
    names = list(RULES)
    given = diagnostic(rule, 1000, 16, torch.Generator().manual_seed(1))
    assert given.facts.shape == (1000, 16, 3)
    for row in range(1000):
        *facts, (x, y, z) = [tuple(fact) for fact in given.facts[row].tolist()]
        true = given.products(row)
        assert all(true[a, b] == c for a, b, c in facts) and true[x, y] == z
        assert rule_of(facts, (x, y, z)) == rule
        if rule == "commute":
            assert WORLDS[int(given.world[row])].abelian
        if rule != "associate" or row < 40:  # the search for chains is slow
            assert follows(rule, facts, x, y, true)
        others = [name for name in names[:4] if name != rule]
        assert not any(follows(name, facts, x, y, true) for name in others)


def test_diagnostics_of_cancel_have_seen_the_whole_group():
    given = diagnostic("cancel", 100, 16, torch.Generator().manual_seed(2))
    for row in range(100):
        *facts, (x, y, z) = given.facts[row].tolist()
        whole = {b for a, b in given.products(row) if a == x}
        taken = {c for a, b, c in facts if a == x or b == y}
        assert whole - taken == {z}


def test_diagnostics_of_the_held_symbol():
    given = diagnostic("identity", 50, 16, torch.Generator().manual_seed(3), held=True)
    assert all(HELD in given.identities(row) for row in range(50))
    assert bool((given.facts[:, -1, :2] == HELD).any(1).all())


def test_questions_do_not_favour_a_place_or_a_symbol():
    given = diagnostic("copy", 400, 16, torch.Generator().manual_seed(4))
    assert float((given.facts[:, -1, 2].bincount(minlength=8) / 400).max()) < 0.25
    places = [next(k for k, fact in enumerate(row) if fact[:2] == row[-1][:2]) for row in given.facts.tolist()]
    assert min(places) == 0 and max(places) > 8


def test_coverage_names_the_first_rule_of_every_fact():
    given = draw(8, 12, torch.Generator().manual_seed(5))
    rows = coverage(given)
    assert [len(row) for row in rows] == [12] * 8 and all(row[0] is None for row in rows)
    for facts, row in zip(given.facts.tolist(), rows, strict=True):
        seen = set()
        for fact, rule in zip(facts, row, strict=True):
            assert (rule == "copy") == (tuple(fact[:2]) in seen)
            seen.add(tuple(fact[:2]))


# ---- the task ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", list(RULES))
def test_texts_of_the_task_are_answered_by_their_rule(rule):
    task = group_facts(rule, 30, seed=2, facts=12)
    assert len(task) > 25
    for item in task:
        words = [*item.clean.split(), item.answer.strip()]
        x, y, z = ([SYMBOLS.index(word) for word in words[k::5]] for k in (1, 2, 4))
        facts = list(zip(x, y, z, strict=True))
        assert len(facts) == 12 and rule_of(facts[:-1], facts[-1]) == rule
        assert (item.part("x"), item.part("y"), item.part("end")) == (words[-4], words[-3], "=") and item.spans["end"][1] == len(
            item.clean
        )
        assert item.answer not in item.distractors and len(item.distractors) >= 2
        if rule == "copy":
            other = item.counterfactuals["fact"]
            assert (
                item.part("answer") == item.answer.strip() and other.part("answer") == other.answer.strip() != item.answer.strip()
            )
            assert other.answer in item.distractors
            before = item.clean[: item.spans["answer"][0]].split()
            assert (before[-3], before[-2], before[-1]) == (item.part("x"), item.part("y"), "=")


def test_an_unknown_rule_is_refused_with_those_there_are():
    with pytest.raises(TaskError, match=r"no rule is called 'divide'; rules are copy"):
        group_facts("divide")
