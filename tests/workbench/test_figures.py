"""What the pages show, against plain torch and plain loops."""

import time
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mainspring.errors import InputError
from mainspring.models.load import load
from mainspring.organisms.registry import entries
from mainspring.sites import at
from mainspring.views.specs import GraphView
from mainspring.workbench.examples import examples_for
from mainspring.workbench.figures import look, patch, steer
from mainspring.workbench.figures.truth import truth_views
from mainspring.workbench.shelf import Held, Shelf

NAME = "organism:two-hop"


@pytest.fixture(scope="module")
def held():
    return Held(NAME, load(NAME))


@pytest.fixture(scope="module")
def model(held):
    return held.model


@pytest.fixture(scope="module")
def texts(held):
    return examples_for(held)


def test_every_organism_has_prompts_of_words_that_it_knows():
    for entry in (one for one in entries() if one.folder is not None):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(entry.folder)
        texts = examples_for(Held(f"organism:{entry.name}", SimpleNamespace(tokenizer=tokenizer)))
        ids = [tokenizer(text)["input_ids"] for text in (texts.clean, texts.other, *texts.off)]
        assert not any(tokenizer.unk_token_id in row for row in ids), entry.name
        assert len(ids[0]) == len(ids[1]) and ids[0] != ids[1], entry.name


def test_the_lens_against_the_models_own_norm_and_head(model, texts):
    grid = look.lens_grid(model, texts.clean)
    ids = torch.tensor([model.tokenizer(texts.clean)["input_ids"]])
    module = model.module
    with torch.no_grad():
        kept = module(ids, output_hidden_states=True)
        for layer in range(model.n_layers):
            last = layer == model.n_layers - 1
            # transformers gives the last one behind the final norm
            logits = kept.logits if last else module.lm_head(module.transformer.ln_f(kept.hidden_states[layer + 1]))
            best = logits[0].softmax(-1).max(-1)
            row = grid.cells[model.n_layers - 1 - layer]
            words = [model.tokenizer.decode([i]) for i in best.indices.tolist()]
            sure = [i for i, chance in enumerate(best.values.tolist()) if chance > 0.3]  # others are ties
            assert [row[i][0] for i in sure] == [words[i] for i in sure]
            assert [weight for _, weight in row] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert grid.cells[0][-1][1] > 0.9
    assert grid.y[0] == f"layer {model.n_layers - 1}"


def test_attention_and_norms(model, texts):
    ids = torch.tensor([model.tokenizer(texts.clean)["input_ids"]])
    plain = model.module(ids, output_attentions=True).attentions if model.module.config._attn_implementation == "eager" else None
    for layer in range(model.n_layers):
        pattern = look.attention(model, texts.clean, layer)
        assert pattern.sum(-1).allclose(torch.ones(pattern.shape[:2]), atol=1e-5)
        if plain is not None:
            assert pattern.allclose(plain[layer][0], atol=1e-5)
    view = look.attention_view(model, texts.clean, 1, 0)
    assert view.values[-1] == pytest.approx(look.attention(model, texts.clean, 1)[0, -1].tolist())
    norms = look.head_norms(model, texts.clean)
    site = at.layers[1].attn.head_out
    assert norms.values[1] == pytest.approx(model.run(texts.clean, read=site)[site][0, -1].norm(dim=-1).tolist(), rel=1e-4)
    with pytest.raises(InputError, match="heads 0 to"):
        look.attention_view(model, texts.clean, 0, 99)


def test_next_tokens(model, texts):
    bars = look.next_tokens(model, texts.clean, 4)
    chances = model.run(texts.clean, until="end").logits[0, -1].softmax(-1)
    assert bars.values == pytest.approx(chances.topk(4).values.tolist(), abs=1e-6)


@pytest.mark.parametrize("maps", [patch.patch_positions, patch.patch_heads])
def test_patching_against_a_plain_loop(model, texts, maps):
    pair = patch.Pair.of(model, texts.clean, texts.other)
    scores = maps(model, pair)
    right, wrong = pair.answers

    def metric(**how):
        logits = model.run(texts.clean, until="end", **how).logits[0, -1]
        return float(logits[right] - logits[wrong])

    base, found = metric(), []
    what = "position" if maps is patch.patch_positions else "head"
    for layer in range(model.n_layers):
        for index in range(scores.values.shape[1]):
            read = at.layers[layer].resid_post if what == "position" else at.layers[layer].attn.z
            source = model.run(texts.other, read=read)
            found.append(base - metric(edits=patch.cell_edit(what, layer, index, source)))
    assert scores.values.flatten().tolist() == pytest.approx(found, abs=2e-4)
    assert max(found) > 1  # something carries the difference


def test_a_cell_opens_its_run(model, texts):
    pair = patch.Pair.of(model, texts.clean, texts.other)
    scores = patch.patch_positions(model, pair)
    layer, index = scores.top(1)[0]
    table = patch.patched_run(model, pair, "position", layer, index)
    words = {row[0]: row[1:] for row in table.rows}
    clean, patched, other = words[pair.words[1]]
    assert clean < 0.1 and patched > 0.5 and other > 0.5


def test_pairs_that_do_not_fit(model, texts):
    with pytest.raises(InputError, match="as many"):
        patch.Pair.of(model, texts.clean, texts.clean.rpartition(" ")[0])
    with pytest.raises(InputError, match="the same"):
        patch.Pair.of(model, texts.clean, texts.clean)
    with pytest.raises(InputError, match="two answers that differ"):
        patch.Pair.of(model, texts.clean, texts.other, "o1", "o1")
    with pytest.raises(InputError, match="positions for"):
        look.lens_grid(model, " ".join(texts.clean.split()[:1] * 100))
    with pytest.raises(InputError, match="positions for"):
        look.room(model, " ".join(texts.clean.split()[:1] * 100))


def test_a_direction_turns_the_answer_and_nothing_turns_without_it(model, texts):
    layer = model.n_layers - 1
    direction = steer.direction_between(model, [texts.other], [texts.clean], layer)
    site = at.layers[layer].resid_post(pos=-1)
    states = [model.run(text, read=site)[site][0] for text in (texts.other, texts.clean)]
    assert direction.allclose(states[0] - states[1], atol=1e-4)

    def answer(strength):
        edit = steer.add_direction(direction, layer, strength)
        return int(model.run(texts.clean, edits=edit, until="end").logits[0, -1].argmax())

    pair = patch.Pair.of(model, texts.clean, texts.other)
    assert (answer(0.0), answer(1.0)) == pair.answers
    assert steer.off_target(model, steer.add_direction(direction, layer, 0.0), texts.off) == pytest.approx([0.0] * 3, abs=1e-5)
    assert min(steer.off_target(model, steer.add_direction(direction, layer, 30.0), texts.off)) > 0.1
    with pytest.raises(InputError, match="no direction"):
        steer.direction_between(model, [texts.clean], [texts.clean], layer)


def test_the_truth_is_drawn():
    from mainspring.organisms.registry import entries

    drawn = {entry.name: truth_views(entry) for entry in entries()}
    graph = next(view for view in drawn["two-hop"] if isinstance(view, GraphView))
    assert {"embed", "logits"} < {node.id for node in graph.nodes}
    for name, views in drawn.items():
        for view in views:
            assert view.to_json(), name


def test_a_shelf_loads_once_and_makes_room(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from mainspring.workbench import shelf as shelves

    opened, loading = [], []

    def load(name):
        loading.append(name)
        assert len(loading) == 1  # never two at once
        time.sleep(0.01)
        opened.append(loading.pop())
        return object()

    monkeypatch.setattr(shelves, "load", load)
    monkeypatch.setattr(shelves.gc, "collect", lambda: 0)  # which takes its time in a process as large as this one
    shelf = Shelf(2)
    with ThreadPoolExecutor(4) as pool:
        same = set(map(id, pool.map(lambda _: shelf.get("a"), range(8))))
    assert len(same) == 1 and opened == ["a"]
    shelf.get("b")
    shelf.get("a")
    shelf.get("c")
    assert [held.name for held in shelf] == ["a", "c"]
    with ThreadPoolExecutor(4) as pool:
        assert [held.name for held in pool.map(shelf.get, "defg")] == ["d", "e", "f", "g"]
    assert sorted(opened) == list("abcdefg")
