"""Sequences for copying: every wanted token follows from what stands before it, and nothing else is wanted."""

import pytest
import torch

from mainspring.tasks.copying import CONCEPTS, KINDS, LANGUAGES, NUMBERS, TOPICS, WORDS, draw, ids_of, text_of
from mainspring.tasks.copying_task import copying

SEEDS = range(12)


def rows(kind, seed, count=6):
    batch = draw(kind, count, torch.Generator().manual_seed(seed))
    for ids, wanted, source, concept in zip(
        batch.ids.tolist(), batch.wanted.tolist(), batch.source.tolist(), batch.concept.tolist(), strict=True
    ):
        yield [WORDS[i] for i in ids], wanted, source, concept


def test_words_are_distinct_and_no_token_is_of_two_languages():
    assert len(set(WORDS)) == len(WORDS) <= 128
    halves = {name: {half for word in words for half in word} for name, words in LANGUAGES.items()}
    assert not halves["a"] & halves["b"]
    for words in LANGUAGES.values():
        assert len(set(words)) == CONCEPTS
        for place in (0, 1):
            begun = [word[place] for word in words]
            assert {begun.count(half) for half in begun} == {4}


def test_text_and_ids_are_inverse():
    ids = draw("words", 1, torch.Generator().manual_seed(0)).ids[0]
    assert ids_of(text_of(ids)) == ids[1:].tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["repeat", "reverse"])
def test_stretches_follow_from_the_only_earlier_place(kind, seed):
    step = 1 if kind == "repeat" else -1
    for words, wanted, source, _ in rows(kind, seed):
        assert any(wanted)
        first = min(p for p, w in enumerate(wanted) if w) - 1  # the first token of the first stretch: its place is random
        for place, asked in enumerate(wanted):
            if not asked:
                assert source[place] == -1
                continue
            before = words[place - 1]
            earlier = words.index(before)
            assert earlier < first
            assert source[place] == earlier + step
            assert words[place] == words[earlier + step]


@pytest.mark.parametrize("seed", SEEDS)
def test_lists_are_said_again_by_number_in_the_language_asked_for(seed):
    for words, wanted, source, concept in rows("words", seed):
        mark = next(i for i, word in enumerate(words) if word in ("as-a", "as-b"))
        spoken = next(name for name, known in LANGUAGES.items() if (words[2], words[3]) in known)
        shown = {words[i]: (LANGUAGES[spoken].index((words[i + 1], words[i + 2])), i + 2) for i in range(1, mark, 3)}
        assert set(shown) <= set(NUMBERS) and len(shown) == (mark - 1) // 3
        told = {}
        for i in range(mark + 1, len(words), 3):
            which, last = shown[words[i]]
            assert tuple(words[i + 1 : i + 3]) == LANGUAGES[words[mark][-1]][which]
            assert wanted[i : i + 3] == [False, True, True]
            assert source[i : i + 3] == [-1, last, last]
            assert concept[i : i + 3] == [-1, which, which] == concept[last - 2 : last + 1]
            told[words[i]] = which
        assert told == {number: which for number, (which, _) in shown.items()}
        assert not any(wanted[: mark + 1])


def test_topics_repeat_behind_bag_and_never_behind_set():
    again = []
    for seed in SEEDS:
        for words, wanted, _, _ in rows("topic", seed):
            assert any(set(words[2:]) <= set(topic) for topic in TOPICS)
            assert wanted == [False] * 3 + [True] * 7
            if words[1] == "set":
                assert len(set(words[2:])) == 8
            else:
                again.append(len(set(words[2:])) < 8)
    assert sum(again) > 0.9 * len(again)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_batch_and_batches_fit(kind):
    one, two, other = (draw(kind, 4, torch.Generator().manual_seed(seed)).ids for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert one.shape != other.shape or not torch.equal(one, other)
    for seed in range(40):
        assert draw(kind, 2, torch.Generator().manual_seed(seed)).ids.shape[1] <= 64


def test_sizes_are_kept():
    generator = torch.Generator().manual_seed(3)
    assert draw("words", 2, generator, size=4).ids.shape[1] == 2 + 2 * 3 * 4
    assert int((draw("reverse", 2, generator, size=9).source[0] >= 0).sum()) >= 3


# ---- as a task -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["repeat", "reverse", "words"])
def test_the_counterfactual_changes_the_answer_at_its_source_alone(kind):
    task = copying(40, 3, kind)
    assert len({item.clean for item in task}) == 40
    for item in task:
        other = item.counterfactuals["source"]
        ours, theirs = item.clean.split(), other.clean.split()
        assert len(ours) == len(theirs) and item.answer != other.answer
        if kind == "words":
            mine, spare = ({words[int(i.variables["concept"])] for words in LANGUAGES.values()} for i in (item, other))
            changed = [p for p in range(len(ours)) if ours[p] != theirs[p]]
            assert changed and {ours[p] for p in changed} <= {half for word in mine for half in word}
            assert {theirs[p] for p in changed} <= {half for word in spare for half in word}
            assert item.part("source") in {word[1] for word in mine}
        else:
            renamed = {item.answer.strip(): other.answer.strip()}
            assert [renamed.get(word, word) for word in ours] == theirs
            assert item.part("source") == item.answer.strip()
            step = 1 if kind == "repeat" else -1
            assert ours[ours.index(item.part("query")) + step] == item.answer.strip()
        assert item.clean.endswith(item.part("query"))
