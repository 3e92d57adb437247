"""Streams: text as it comes, hooks only while the model computes, and nothing left behind."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from conformance.zoo import CASES
from engine.recompute import prompts
from engine.tiny import fingerprint, hooks_on
from mainspring import at, errors

EDITS = at.layers[0].resid_post.scale(1.5) + at.layers[1].attn.pattern(key=0).scale(0.5)


class Bytes:
    """A tokenizer whose tokens are bytes: characters take several of them."""

    def decode(self, tokens, **_):
        return bytes(TABLE[t] for t in tokens).decode(errors="replace")


class Letters:
    """Token t is one letter; no token is special, so padding would show."""

    def decode(self, tokens, **_):
        return "".join(chr(0x4E00 + int(t)) for t in tokens)


@pytest.fixture
def guarded():
    """A Llama that must be as it was after the test."""
    module = CASES["llama"].build()
    before, kernel = fingerprint(module), module.config._attn_implementation
    yield module
    assert fingerprint(module) == before
    assert hooks_on(module) == []
    assert module.config._attn_implementation == kernel
    assert torch.is_grad_enabled()


def clean(module, kernel="sdpa"):
    return hooks_on(module) == [] and module.config._attn_implementation == kernel and torch.is_grad_enabled()


def forced(tokens):
    """Edits that make a generation say these tokens."""
    return [at.logits(step=i, vocab=t).set(1e4) for i, t in enumerate(tokens)]


def test_a_stream_gives_what_the_whole_gives(guarded):
    batch, _, _ = prompts("llama")
    model = ms.wrap(guarded, tokenizer=Letters())
    whole = model.generate(batch, edits=EDITS, read=at.logits, max_new_tokens=6)
    stream = model.generate(batch, edits=EDITS, read=at.logits, max_new_tokens=6, stream=True)
    steps = list(stream)
    assert [s.index for s in steps] == list(range(6))
    assert torch.equal(torch.stack([s.tokens for s in steps], 1), whole.new_tokens)
    assert tuple("".join(s.text[row] for s in steps) for row in range(3)) == whole.text
    for i, step in enumerate(steps):
        torch.testing.assert_close(step.logits, whole.logits[:, 12 + i])
        assert not step.logits.requires_grad
    assert [s.done.tolist() for s in steps] == [[False] * 3] * 5 + [[True] * 3]
    assert stream.result is stream.result
    assert torch.equal(stream.result.tokens, whole.tokens)
    assert stream.result.fired == whole.fired


def test_hooks_are_on_only_while_the_model_computes(guarded):
    model = ms.wrap(guarded)
    seen = []
    stream = model.generate(
        [[20, 21, 22]], edits=EDITS, controller=lambda s: seen.append(clean(guarded)), max_new_tokens=4, stream=True
    )
    assert clean(guarded)
    for _ in stream:
        assert clean(guarded)
        assert torch.equal(model.run([[5, 6]], until="end").logits, guarded(torch.tensor([[5, 6]])).logits)
    assert seen == [True] * 3


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_abandoned_stream_leaves_nothing(guarded, taken):
    stream = ms.wrap(guarded).generate([[20, 21, 22]], edits=EDITS, max_new_tokens=9, stream=True)
    for _ in range(taken):
        next(stream)
    del stream
    assert clean(guarded)


def test_a_closed_stream_keeps_what_it_has(guarded):
    model = ms.wrap(guarded)
    whole = model.generate([[20, 21, 22]], edits=EDITS, max_new_tokens=9)
    stream = model.generate([[20, 21, 22]], edits=EDITS, max_new_tokens=9, stream=True, read=at.embed)
    next(stream), next(stream)
    stream.close()
    assert next(stream, None) is None
    assert torch.equal(stream.result.new_tokens, whole.new_tokens[:, :2])
    assert stream.result[at.embed].shape[1] == 4
    unborn = model.generate([[20, 21]], max_new_tokens=3, stream=True)
    unborn.close()
    with pytest.raises(errors.InputError, match="closed"):
        _ = unborn.result


@pytest.mark.parametrize("call", [0, 1, 3])
def test_an_error_in_an_edit_leaves_nothing_and_no_half_result(guarded, call):
    calls = []

    def faulty(value):
        calls.append(1)
        if len(calls) > call:
            raise RuntimeError("my own")
        return value

    edits = [EDITS, at.layers[1].attn.k.apply(faulty)]
    with pytest.raises(RuntimeError, match="my own"):
        ms.wrap(guarded).generate([[20, 21, 22]], edits=edits, max_new_tokens=6)
    calls.clear()
    stream = ms.wrap(guarded).generate([[20, 21, 22]], edits=edits, max_new_tokens=6, stream=True)
    with pytest.raises(RuntimeError, match="my own"):
        list(stream)
    assert clean(guarded)
    with pytest.raises(RuntimeError, match="my own"):
        _ = stream.result


def test_an_error_in_the_controller_or_the_model_leaves_nothing(guarded):
    def controller(step):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ms.wrap(guarded).generate([[20, 21]], edits=EDITS, controller=controller, max_new_tokens=4)
    assert clean(guarded)
    layer = guarded.model.layers[2]
    layer.forward, own = None, layer.forward
    with pytest.raises(TypeError):
        ms.wrap(guarded).generate([[20, 21]], edits=EDITS, max_new_tokens=4)
    layer.forward = own


def test_a_run_inside_an_edit_and_a_generation_inside_a_controller(guarded):
    model, inner = ms.wrap(guarded), []

    def look(value):
        inner.append(model.run([[5, 6, 7]], read=at.layers[0].resid_post)[at.layers[0].resid_post])
        return value * 2

    def controller(step):
        inner.append(model.generate([[5, 6]], max_new_tokens=2, edits=at.embed.scale(0.5)).tokens)

    site = at.layers[0].resid_post
    found = model.generate([[20, 21, 22]], edits=site.apply(look), controller=controller, max_new_tokens=3)
    assert torch.equal(found.tokens, model.generate([[20, 21, 22]], edits=site.scale(2.0), max_new_tokens=3).tokens)
    plain = model.run([[5, 6, 7]], read=site)[site]
    assert all(torch.equal(x, plain) for x in inner if x.ndim == 3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_two_threads_generate_with_their_own_edits(family):
    module = CASES[family].build()
    model, batch = ms.wrap(module), prompts(family)[0]
    changes = [None, at.layers[1].resid_post.scale(0.3), at.layers[0].attn.v.scale(-2.0), at.layers[2].attn.scores(key=0).mask()]
    alone = [model.generate(batch, edits=e, max_new_tokens=10).tokens for e in changes]
    assert len({tuple(a.flatten().tolist()) for a in alone}) == 4
    found, barrier = {}, threading.Barrier(4)

    def work(i):
        barrier.wait()
        found[i] = [model.generate(batch, edits=changes[i], max_new_tokens=10).tokens for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, expected in enumerate(alone):
        assert all(torch.equal(x, expected) for x in found[i]), changes[i]
    assert clean(module, module.config._attn_implementation)
    assert not module.config._attn_implementation.startswith("mainspring")


# ---- text ----

TABLE = [0x20, *b"qrst\xc3\xe2\xf0", *range(0x61, 0x79), *range(0x80, 0xC0)]
"""The bytes of the 96 tokens: a few that begin characters, some letters, and all that stand inside characters."""


def spoken(tokens, model):
    stream = model.generate([[40, 41, 42]], edits=forced(tokens), max_new_tokens=len(tokens), stream=True)
    return [step.text[0] for step in stream], stream.result


MODEL = ms.wrap(CASES["llama"].build(), tokenizer=Bytes())


def test_characters_of_several_tokens_come_whole():
    pieces, _ = spoken([TABLE.index(b) for b in "q😀€é".encode()], MODEL)
    assert pieces == ["q", "", "", "", "😀", "", "", "€", "", "é"]
    pieces, result = spoken([TABLE.index(b) for b in "q😀".encode()[:-1]], MODEL)
    assert pieces == ["q", "", "", "\ufffd"], "what never becomes a character is shown at the end"
    assert result.text == ("q\ufffd",)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 95), min_size=1, max_size=7))
def test_pieces_concatenate_to_the_text(tokens):
    pieces, result = spoken(tokens, MODEL)
    assert result.new_tokens[0].tolist() == tokens
    assert "".join(pieces) == result.text[0] == bytes(TABLE[t] for t in tokens).decode(errors="replace")


def test_the_text_of_a_row_ends_where_it_ends():
    batch, alone, _ = prompts("llama")
    module = CASES["llama"].build()
    module.generation_config.pad_token_id = 5
    model = ms.wrap(module, tokenizer=Letters())
    plain = model.generate(batch, max_new_tokens=7)
    ends = [int(plain.new_tokens[0, 2]), int(plain.new_tokens[1, 4])]
    stream = model.generate(batch, max_new_tokens=7, stop=ends, stream=True)
    pieces = [step.text for step in stream]
    assert (stream.result.new_tokens == 5).any()
    for row, inputs in enumerate(alone):
        assert (
            "".join(p[row] for p in pieces)
            == stream.result.text[row]
            == model.generate(inputs, max_new_tokens=7, stop=ends).text[0]
        )


# ---- images ----


class Processor:
    """What a LLaVA processor does, by hand: every image placeholder becomes nine tokens."""

    tokenizer = Letters()

    def __call__(self, text=None, images=None, return_tensors=None, padding=None, padding_side="right"):
        assert (return_tensors, padding) == ("pt", True)
        texts = [text] if isinstance(text, str) else text
        rows = [[t for c in row for t in ([5] * 9 if c == "#" else [ord(c) - 0x4E00])] for row in texts]
        width = max(map(len, rows))
        ids, mask = torch.ones(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            where = slice(width - len(row), None) if padding_side == "left" else slice(len(row))
            ids[i, where], mask[i, where] = torch.tensor(row), 1
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.stack(images)}

    def apply_chat_template(self, conversation, tokenize, add_generation_prompt):
        return "".join(message["content"] for message in conversation)


def test_images_go_through_the_processor_and_rows_are_padded_on_the_left():
    module = CASES["llava"].build()
    model = ms.wrap(module, processor=Processor())
    texts = [Letters().decode([20, 21]) + "#" + Letters().decode([30, 31, 32, 33]), "#" + Letters().decode([44])]
    images = [torch.randn(3, 18, 18, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    edit = at.layers[1].resid_post(pos=0).scale(2.0)
    found = model.generate(texts, images=images, max_new_tokens=5, read=at.projector, edits=edit)
    for row in range(2):
        one = model.generate(texts[row], images=images[row : row + 1], max_new_tokens=5, edits=edit)
        assert torch.equal(found.new_tokens[row], one.new_tokens[0])
        assert found.text[row] == one.text[0]
    plain = model.generate(texts[0], images=images[:1], max_new_tokens=5)
    encoded = Processor()(text=texts[0], images=images[:1], return_tensors="pt", padding=True)
    assert torch.equal(plain.tokens, module.generate(**encoded, max_new_tokens=5, do_sample=False))
    chat = model.generate([{"role": "user", "content": texts[0]}], images=images[:1], max_new_tokens=5)
    assert torch.equal(chat.tokens, plain.tokens)
    both = model.generate([[{"role": "user", "content": t}] for t in texts], images=images, max_new_tokens=5)
    assert torch.equal(both.new_tokens[0], plain.new_tokens[0])


def test_images_without_a_processor():
    model = ms.wrap(CASES["llava"].build())
    with pytest.raises(errors.MissingTokenizer, match="processor"):
        model.generate("a", images=[torch.zeros(3, 18, 18)])
    with pytest.raises(errors.InputError, match="images="):
        model.generate(CASES["llava"].inputs(), images=[torch.zeros(3, 18, 18)])
