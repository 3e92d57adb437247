"""Tasks that the context tells: answers by a second derivation from the words alone."""

import pytest
import torch

from mainspring.tasks.pair_icl import CATEGORIES, FUNCTIONS, ITEMS, KINDS, LABELS, NAMES, SYMBOLS, WORDS, draw, token
from mainspring.tasks.pair_icl_task import filtering, functions


def rows(kind, seed, count=8, **how):
    batch = draw(kind, count, torch.Generator().manual_seed(seed), **how)
    for i in range(count):
        yield [WORDS[j] for j in batch.ids[i].tolist()], batch, i


def apply(task, symbol):
    return SYMBOLS[FUNCTIONS[task][SYMBOLS.index(symbol)]]


def test_words_are_distinct_and_functions_are_permutations_that_differ():
    assert len(set(WORDS)) == len(WORDS) <= 128
    assert all(sorted(function) == list(range(len(SYMBOLS))) for function in FUNCTIONS)
    assert len(set(FUNCTIONS)) == len(NAMES) == 10
    assert [WORDS[token(word)] for word in (*SYMBOLS, *LABELS)] == [*SYMBOLS, *LABELS]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["shots", "named", "name", "plain"])
def test_functions_are_told_by_examples_or_by_name(kind, seed):
    for words, batch, i in rows(kind, seed):
        task = int(batch.task[i])
        assert words[-2] == ":"
        if kind == "named":
            assert words[1] == NAMES[task]
        if kind == "name":
            assert words[-3:] == ["#", ":", NAMES[task]]
        else:
            assert apply(task, words[-3]) == words[-1]
            assert SYMBOLS[batch.query[i]] == words[-3]
        shown = [(words[j - 1], words[j + 1]) for j, word in enumerate(words[:-3]) if word == ":"]
        assert all(apply(task, x) == y for x, y in shown)
        asked = [x for x, _ in shown] + [words[-3]]
        assert len(set(asked)) == len(asked)  # the query is never among the examples
        assert batch.wanted[i].sum() == max(len(shown) - 1, 0) + 1
        assert bool(batch.wanted[i, -1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["which", "first"])
def test_one_item_of_a_list_is_of_the_category(kind, seed):
    for words, batch, i in rows(kind, seed):
        category = words[words.index("which") + 1]
        items = [w for w in words[:-1] if any(w in group for group in ITEMS)]
        fitting = [w for w in items if w in ITEMS[CATEGORIES.index(category)]]
        assert fitting == [words[-1]]
        assert (words.index("which") > words.index("list")) == (kind == "which")
        assert words[batch.place[i]] == words[-1]
        assert CATEGORIES[batch.task[i]] == category


def test_labels_are_drawn_anew_and_are_where_the_query_stood():
    seen = {}
    for seed in range(20):
        for words, batch, i in rows("classify", seed):
            pairs = {words[1]: words[3], words[5]: words[7]}
            assert len(pairs) == len(set(pairs.values())) == 2
            assert pairs[words[-3]] == words[-1] == words[batch.place[i]]
            asked = list(range(11, len(words), 4))
            assert batch.wanted[i].nonzero()[:, 0].tolist() == asked and 1 <= len(asked) <= 5
            assert all(pairs[words[p - 2]] == words[p] for p in asked)
            seen.setdefault(words[-3], set()).add(words[-1])
    assert sum(len(labels) > 1 for labels in seen.values()) > len(seen) / 2


def test_tasks_and_sizes_can_be_given():
    task = torch.tensor([3, 3, 5, 0])
    for kind in ("shots", "which"):
        for words, batch, i in rows(kind, 0, 4, size=5, task=task):
            assert int(batch.task[i]) == int(task[i])
            assert len(words) == (1 + 5 * 4 + 3 if kind == "shots" else 1 + 6 + 2 + 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_batch(kind):
    one, two = (draw(kind, 4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.prompt, one.ids[:, :-1]) and torch.equal(one.answer, one.ids[:, -1])


# ---- as tasks ------------------------------------------------------------------------------------------------------------------------


def test_counterfactual_functions_answer_by_the_same_rule():
    task = functions(30, 2, shots=4)
    assert task.counterfactuals == ("task", "query") and len({item.clean for item in task}) == 30
    for item in task:
        for one in (item, *item.counterfactuals.values()):
            words = one.clean.split()
            function = NAMES.index(one.variables["task"])
            pairs = [(words[p - 1], words[p + 1]) for p in range(1, 16, 4)] + [(words[-2], one.answer.strip())]
            assert all(apply(function, x) == y for x, y in pairs)
            assert one.part("query") == words[-2] == one.variables["query"]
            assert one.part("examples") == " ".join(words[:16])
        changed, other = item.counterfactuals["task"], item.counterfactuals["query"]
        assert changed.part("query") == item.part("query") and changed.answer != item.answer
        assert other.part("examples") == item.part("examples") and other.answer != item.answer


def test_counterfactual_lists_answer_by_the_same_rule():
    for item in filtering(30, 2):
        for one in (item, *item.counterfactuals.values()):
            words = one.clean.split()
            (fitting,) = [w for w in words[1:6] if w in ITEMS[CATEGORIES.index(words[7])]]
            assert (words[0], words[6], words[8]) == ("list", "which", ":")
            assert one.part("item") == fitting == one.answer.strip()
            assert one.part("category") == words[7] == one.variables["category"]
        asked, fresh = item.counterfactuals["category"], item.counterfactuals["list"]
        assert asked.clean.split()[:6] == item.clean.split()[:6] and asked.answer != item.answer
        assert not set(fresh.clean.split()[1:6]) & set(item.clean.split()[1:6])
        assert fresh.variables["category"] == item.variables["category"]
