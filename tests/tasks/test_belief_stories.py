"""Stories of beliefs: answers by reading who filled what and who sees whom, word by word."""

import pytest
import torch

from mainspring.organisms.facts.build import build_tokenizer
from mainspring.tasks.belief_stories import CONTAINERS, DRINKS, HELD, SIGHTS, UNKNOWN, WORDS, beliefs, draw


def rows(sight, seed, count=16, **given):
    batch = draw(sight, count, torch.Generator().manual_seed(seed), **given)
    for i in range(count):
        yield ["<bos>", *batch.text(i).split(), WORDS[batch.answer[i]]], batch, i


def believed(words, thinker, container):
    """(what they think, the clause that answers: 0, 1 or 2 for `unknown`)"""
    filled = [(words[k - 1], words[k + 1], words[k + 3]) for k, word in enumerate(words) if word == "fills"]
    seen = {(words[k - 1], words[k + 1]) for k, word in enumerate(words) if word == "sees"}
    for k, (who, what, drink) in enumerate(filled):
        if what == container and (who == thinker or (thinker, who) in seen):
            return drink, k
    return "unknown", 2


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("sight", SIGHTS)
def test_beliefs_follow_from_who_filled_and_who_sees(sight, held):
    for seed in range(6):
        for words, batch, i in rows(sight, seed, held=held):
            drink, pointer = believed(words, words[-5], words[-3])
            assert words[-1] == drink and int(batch.parts["pointer"][i, -1]) == pointer
            assert (batch.answer[i] == UNKNOWN) == (pointer == 2)


@pytest.mark.parametrize("sight", SIGHTS)
def test_roles_stand_where_it_is_said(sight):
    for words, batch, i in rows(sight, 3):
        at = {role: words[int(place[i])] for role, place in batch.places.items()}
        assert (at["thinker"], at["query"], at["end"]) == (words[-5], words[-3], ":")
        clause = words.index(at["query"]) - 2
        assert (at["person"], at["container"], at["drink"]) == (words[clause], at["query"], words[clause + 4])
        assert {at["drink"], at["other drink"]} == {words[5], words[11]}
        assert ("watcher" in at) == (sight != "mute")
        places = {role: int(place[i]) for role, place in batch.places.items()}
        assert [places[role] for role in ("stop", "other stop")] == [places[role] + 1 for role in ("drink", "other drink")]
        assert at["stop"] == at["other stop"] == ";"
        if sight != "mute":
            k = words.index(sight)
            assert [at[role] for role in ("watcher", "sight", "watched", "sight stop")] == words[k - 1 : k + 3]
            assert places["sight"] == k


@pytest.mark.parametrize("sight", SIGHTS)
def test_taught_stories_have_no_held_pair_and_held_out_ones_ask_for_one(sight):
    def held(container, drink):
        return bool(HELD[CONTAINERS.index(container), DRINKS.index(drink)])

    for words, *_ in rows(sight, 4, 40):
        assert not held(words[3], words[5]) and not held(words[9], words[11])
    for words, *_ in rows(sight, 4, 40, held=True):
        drinks = {words[3]: words[5], words[9]: words[11]}
        assert held(words[-3], drinks[words[-3]])


def test_both_people_both_containers_and_unknown_are_asked_for():
    seen = {(sight, int(batch.parts["pointer"][i, -1])) for sight in SIGHTS for _, batch, i in rows(sight, 6, 60)}
    assert seen == {(sight, k) for sight in SIGHTS for k in range(3)}


def test_every_question_is_answered_and_no_two_are_the_same():
    for words, *_ in rows("sees", 7, questions=4):
        asked = [k for k, word in enumerate(words) if word == "thinks"]
        assert len({(words[k - 1], words[k + 1]) for k in asked}) == 4
        assert all(words[k + 3] == believed(words, words[k - 1], words[k + 1])[0] for k in asked)


@pytest.mark.parametrize("sight", SIGHTS)
def test_a_seed_gives_the_same_stories(sight):
    one, two = (draw(sight, 8, torch.Generator().manual_seed(1), questions=3) for _ in range(2))
    assert torch.equal(one.ids, two.ids)


def test_the_task_tells_the_same_story_and_its_counterfactuals_change_what_they_say():
    tokenizer, task = build_tokenizer(WORDS), beliefs(60, seed=2)
    assert task.counterfactuals == ("drink", "clauses", "thinker") and {"drink", "query", "end"} <= set(task.roles)
    for item in task:
        assert tokenizer.decode(tokenizer(item.clean)["input_ids"]) == f"<bos> {item.clean}"
        for told in (item, *item.counterfactuals.values()):
            words = ["<bos>", *told.clean.split()]
            assert believed(words, words[-4], words[-2])[0] == told.answer.strip() == task.do(told).strip()
            assert len(told.clean.split()) == len(item.clean.split())
        others = item.counterfactuals
        assert others["clauses"].answer == item.answer and others["clauses"].variables["first"] == item.variables["second"]
        assert (others["drink"].answer == item.answer) == (item.answer == " unknown")
        assert task.do(item, pointer="second") == f" {item.variables['second']}"
        if "sight" in others:
            assert ("sees" in item.clean) != ("sees" in others["sight"].clean)
