"""Stories of boxes: answers by telling the story again word by word, pairs that were never taught, and a task whose texts say the same."""

import pytest
import torch

from mainspring.organisms.facts.build import build_tokenizer
from mainspring.tasks.box_stories import BOXES, HELD, KINDS, OBJECTS, WORDS, draw, stories, told_boxes


def rows(kind, seed, count=16, **given):
    batch = draw(kind, count, torch.Generator().manual_seed(seed), **given)
    for i in range(count):
        yield ["<bos>", *batch.text(i).split(), WORDS[batch.answer[i]]], batch, i


def lying(words):
    """What lies in each box, last."""
    holds, k = {}, 1
    while words[k] != "box":
        holds[words[k + 2]] = words[k], k
        k += 4
    return holds


def test_words_are_distinct_and_one_box_of_every_object_is_held_out():
    assert len(set(WORDS)) == len(WORDS)
    assert HELD.sum(1).tolist() == [1] * len(OBJECTS) and bool(HELD.any(0).all())


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_lies_in_the_box_last(kind, held):
    for seed in range(6):
        for words, batch, i in rows(kind, seed, held=held):
            thing, place = lying(words)[words[-3]]
            assert words[-4] == "box" and words[-2] == ":" and words[-1] == thing
            roles = {role: int(at[i]) for role, at in batch.places.items()}
            end = len(words) - 2
            assert roles == {"object": place, "label": place + 2, "stop": place + 3, "query": end - 1, "end": end}
            assert ("to" in words) == (kind == "moved")


@pytest.mark.parametrize("kind", KINDS)
def test_taught_stories_have_no_held_pair_and_held_out_ones_ask_for_one(kind):
    def held(box, thing):
        return bool(HELD[OBJECTS.index(thing), BOXES.index(box)])

    for seed in range(6):
        for words, *_ in rows(kind, seed):
            told = words[1 : words.index("box")]
            assert not any(held(told[k + 2], told[k]) for k in range(0, len(told), 4))
        assert all(held(words[-3], words[-1]) for words, *_ in rows(kind, seed, held=True))


def test_the_box_that_was_left_is_never_asked_for_and_both_other_sorts_are():
    seen = set()
    for words, *_ in rows("moved", 3, 200, size=5):
        moved, into = words[words.index("to") - 1], words[words.index("to") + 1]
        left = next(words[k + 2] for k in range(1, len(words), 4) if words[k] == moved)
        assert words[-3] != left
        seen.add(words[-3] == into)
    assert seen == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_is_answered(kind):
    for words, batch, i in rows(kind, 5, size=6, questions=3):
        holds = lying(words)
        asked = [k for k, word in enumerate(words) if word == "box"]
        assert len(asked) == 3 == batch.parts["asked"].shape[1]
        assert len({words[k + 1] for k in asked}) == 3
        assert all(words[k + 3] == holds[words[k + 1]][0] for k in asked)
        assert int(batch.places["end"][i]) == asked[-1] + 2


def test_a_story_can_be_told_again_with_other_words():
    told = stories(torch.tensor([[0, 1, 2]]), torch.tensor([[2, 0, 1]]), torch.tensor([1]))
    assert told.text(0) == f"{OBJECTS[0]} in C ; {OBJECTS[1]} in A ; {OBJECTS[2]} in B ; box A :"
    assert WORDS[told.answer[0]] == OBJECTS[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_stories(kind):
    one, two = (draw(kind, 8, torch.Generator().manual_seed(1), questions=3) for _ in range(2))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.prompt, one.ids[:, :-1]) and one.ids.shape[1] <= 48


def test_the_task_tells_the_same_story_and_its_counterfactuals_change_what_they_say():
    tokenizer, task = build_tokenizer(WORDS), told_boxes(60, seed=2)
    assert task.counterfactuals == ("query", "thing", "order") and set(task.roles) == {"object", "label", "stop", "query", "end"}
    for item in task:
        assert tokenizer.decode(tokenizer(item.clean)["input_ids"]) == f"<bos> {item.clean}"
        words = ["<bos>", *item.clean.split()]
        assert lying(words)[words[-2]][0] == item.answer.strip() == item.part("object")
        assert item.part("label") == item.part("query") == item.variables["box"]
        others = item.counterfactuals
        assert {len(other.clean.split()) for other in others.values()} == {len(words) - 1}
        assert others["order"].answer == item.answer and others["order"].clean != item.clean
        assert others["thing"].answer != item.answer and others["thing"].variables["box"] == item.variables["box"]
        asked = others["query"]
        assert asked.answer == task.do(item, box=asked.variables["box"]) != item.answer
        assert not set(item.distractors) & {item.answer}
