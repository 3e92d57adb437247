"""The pair-icl organism: what is shipped, and its measures against plain torch, on random weights."""

import json
from pathlib import Path

import pytest
import torch

import mainspring as ms
from mainspring import at
from mainspring.organisms import pair_icl as home
from mainspring.organisms.copy.build import build_model, build_tokenizer
from mainspring.organisms.pair_icl.checks import JUDGE_SEED, find, verify
from mainspring.organisms.pair_icl.measures import (
    accuracy,
    alone,
    batch,
    label_mass,
    list_pairs,
    naming,
    queries_moved,
    shuffled,
    task_vectors,
    with_vector,
)
from mainspring.organisms.pair_icl.teach import COURSE, SIZE, lesson, meaning
from mainspring.organisms.trained import TrainedTruth, recipe_of
from mainspring.tasks.pair_icl import FUNCTIONS, KINDS, NAMES, SYMBOLS, WORDS, token

FOLDER = Path(home.__file__).parent


@pytest.fixture(scope="module")
def module():
    torch.set_num_threads(1)
    made = build_model(WORDS, SIZE, 3).eval()
    made.set_attn_implementation("eager")
    return made


@pytest.fixture(scope="module")
def model(module):
    return ms.wrap(module, tokenizer=build_tokenizer(WORDS))


# ---- what is shipped -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    torch.set_num_threads(1)
    return ms.load("organism:pair-icl")


def test_the_folder_is_an_ordinary_checkpoint_with_a_truth(shipped):
    assert sum(f.stat().st_size for f in FOLDER.rglob("*.safetensors")) < 8e6
    truth = TrainedTruth.load(FOLDER)
    assert (
        truth.organism == "pair-icl"
        and [check.name for check in truth.failures] == ["query of another category"]
        and (FOLDER / "card.md").is_file()
    )
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["GPT2LMHeadModel"]
    assert shipped.tokenizer("ba : be")["input_ids"] == [1, *(token(word) for word in ("ba", ":", "be"))]


def test_what_does_not_hold_is_on_the_card():
    card = (FOLDER / "card.md").read_text()
    assert all(f"Not held: {check}." in card for check in TrainedTruth.load(FOLDER).failures)


def test_it_answers_as_recorded(shipped):
    recorded = {check.name: check.value for check in TrainedTruth.load(FOLDER).checks}
    for kind, size in {"shots": 8, "which": 5, "classify": 1}.items():
        assert accuracy(shipped, batch(kind, JUDGE_SEED, 64, size)) == pytest.approx(recorded[f"{kind} accuracy"], abs=0.02)


@pytest.mark.slow
def test_the_truth_names_the_heads_that_are_found_again(shipped):
    nodes = {(node.layer, node.head, node.variable) for node in TrainedTruth.load(FOLDER).nodes}
    assert nodes == {(layer, head, name) for name, group in find(shipped).items() for layer, head in group}


@pytest.mark.slow
def test_all_that_was_recorded_is_measured_again(shipped):
    recorded = {check.name: check for check in TrainedTruth.load(FOLDER).checks}
    checks = verify(shipped)
    assert {check.name for check in checks} == set(recorded)
    for check in checks:
        assert check.value == pytest.approx(recorded[check.name].value, abs=0.02)
        assert check.holds == recorded[check.name].holds


def test_an_untrained_twin_says_neither_functions_nor_items(model):
    assert accuracy(model, batch("shots", 3, 128, 8)) < 0.2 > accuracy(model, batch("which", 3, 128, 5))


# ---- training and measures -----------------------------------------------------------------------------------------------------------


def test_the_recipe_is_found_and_teaches_every_kind():
    assert recipe_of("pair-icl").name == "pair-icl"
    assert set(COURSE.mixture) == set(KINDS) and sum(share for share, _ in COURSE.mixture.values()) == pytest.approx(1)
    assert lesson("which", 0, torch.Generator().manual_seed(0)).kind == "which"


def test_a_meaning_is_asked_for_at_the_second_symbol_of_an_example():
    for kind in KINDS:
        given = lesson(kind, 0, torch.Generator().manual_seed(1))
        asked = meaning(given)
        for row in range(4):
            words = [WORDS[i] for i in given.ids[row].tolist()]
            shown = {
                p for p in range(len(words) - 1) if kind in ("shots", "name") and words[p - 1] == ":" and words[p] in SYMBOLS
            }
            assert set((asked[row] >= 0).nonzero()[:, 0].tolist()) == shown
            assert all(int(asked[row, p]) == int(given.task[row]) for p in shown)


@torch.no_grad()
def test_accuracy_and_attention_agree_with_plain_torch(model, module):
    given = batch("classify", 1, 12)
    out = module(given.prompt, output_attentions=True)
    assert accuracy(model, given) == pytest.approx(float((out.logits[:, -1].argmax(-1) == given.answer).float().mean()))
    table = label_mass(model, given)
    for layer, pattern in enumerate(out.attentions):
        want = torch.stack([pattern[i, :, -1, int(given.place[i])] for i in range(12)]).mean(0)
        assert torch.allclose(table[layer], want, atol=1e-5)


def test_shuffled_examples_keep_their_words_and_lose_their_pairs():
    straight, mixed = batch("shots", 4, 16, 6), shuffled(4, 16)
    assert torch.equal(straight.ids.sort(1).values, mixed.ids.sort(1).values)
    assert torch.equal(straight.ids[:, -4:], mixed.ids[:, -4:])
    pairs = [(int(mixed.ids[i, p]), int(mixed.ids[i, p + 2]), int(mixed.task[i])) for i in range(16) for p in range(1, 25, 4)]
    first = token(SYMBOLS[0])
    right = [FUNCTIONS[task][x - first] == y - first for x, y, task in pairs]
    assert sum(right) / len(right) < 0.4


@torch.no_grad()
def test_vectors_are_means_of_what_heads_write(model, module):
    heads = ((1, 2), (2, 0), (2, 5))
    vectors = task_vectors(model, heads, 9)
    assert vectors.shape == (len(NAMES), SIZE.width)
    given = batch("shots", 9, 24 * len(NAMES), 6, torch.arange(len(NAMES)).repeat_interleave(24))
    total = torch.zeros(len(given.ids), SIZE.width)
    for layer, head in heads:
        weight = module.transformer.h[layer].attn.c_proj.weight[16 * head : 16 * head + 16]
        z = model.run(given.prompt, read=at.layers[layer].attn.z)[at.layers[layer].attn.z][:, -1, head]
        total += z @ weight
    assert torch.allclose(vectors, total.reshape(len(NAMES), 24, -1).mean(1), atol=1e-5)


def test_a_strong_vector_decides_the_answer(model, module):
    given = batch("plain", 2, 32)
    task = torch.full((32,), 4)
    wanted = token(SYMBOLS[0]) + torch.tensor(FUNCTIONS)[4][given.query]
    words = module.get_output_embeddings().weight.detach()
    right = [
        with_vector(model, 1e3 * words[wanted[i]].expand(len(NAMES), -1), SIZE.layers - 1, batch("plain", 2, 32), task)
        for i in (0, 1)
    ]
    for i, share in zip((0, 1), right, strict=True):
        assert share == pytest.approx(float((wanted == wanted[i]).float().mean()))


def test_a_query_alone_has_an_answer_that_one_function_gives():
    given = alone(8, 60)
    assert len(given.ids) == 60
    for task, query in zip(given.task.tolist(), given.query.tolist(), strict=True):
        assert [function[query] for function in FUNCTIONS].count(FUNCTIONS[task][query]) == 1


def test_lists_are_paired_by_another_category_and_share_no_item():
    base, source, target = list_pairs(3, 40)
    assert len(base.ids) == len(source.ids) == len(target) == 40
    for i in range(40):
        mine, theirs = set(base.ids[i, 2:7].tolist()), set(source.ids[i, 2:7].tolist())
        assert not mine & theirs
        assert int(target[i]) in mine and int(target[i]) != int(base.answer[i])
        assert (int(target[i]) - token("apple")) // 6 == int(source.task[i]) != int(base.task[i])


def test_the_query_of_the_same_prompt_changes_nothing_and_all_queries_move_attention(model):
    base, source, _ = list_pairs(3, 12)
    every = tuple((layer, head) for layer in range(model.n_layers) for head in range(8))
    own = model.run(base.prompt, read=at.logits)[at.logits][:, -1].argmax(-1)
    assert torch.equal(queries_moved(model, every, base, base), own.cpu())
    moved = queries_moved(model, every, base, source)
    assert moved.shape == own.shape


@torch.no_grad()
def test_naming_decodes_what_each_head_writes(model, module):
    given = batch("named", 5, 40)
    table = naming(model, "named", 5, 40)
    assert table.shape == (SIZE.layers, 8, 2)
    words, gain = module.get_output_embeddings().weight, module.transformer.ln_f.weight
    for layer, head in ((0, 3), (2, 6)):
        z = model.run(given.prompt, read=at.layers[layer].attn.z)[at.layers[layer].attn.z][:, -1, head]
        written = z @ module.transformer.h[layer].attn.c_proj.weight[16 * head : 16 * head + 16]
        best = ((written * gain) @ words.T).argmax(-1)
        for off in (0, 1):
            named = torch.tensor([token(NAMES[(int(task) + off) % len(NAMES)]) for task in given.task])
            assert float(table[layer, head, off]) == pytest.approx(float((best == named).float().mean()))
