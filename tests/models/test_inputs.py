"""Every form that inputs may take, against tensors written by hand."""

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at, errors, span
from words import words

TEXT = "the capital of Oland is"
IDS = [2, 4, 5, 6, 7, 9]
SHORT = [2, 14, 15]  # <s> hi you


@pytest.fixture(scope="module")
def llama():
    return ms.wrap(CASES["llama"].build(), tokenizer=words())


@pytest.fixture(scope="module")
def chatty():
    return ms.wrap(CASES["llama"].build(), tokenizer=words(chat=True))


def numbers(prepared):
    return {k: v.tolist() for k, v in prepared.kwargs.items()}


FORMS = {
    "text": TEXT,
    "a list of one text": [TEXT],
    "a tuple": (TEXT,),
    "a tensor": torch.tensor(IDS),
    "a batch": torch.tensor([IDS]),
    "int32": torch.tensor([IDS], dtype=torch.int32),
    "tokens": IDS,
    "a list of token lists": [IDS],
    "a list of tensors": [torch.tensor(IDS)],
    "a list of rows": [torch.tensor([IDS])],
    "a tuple of tuples": (tuple(IDS),),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_row_in_every_form(llama, form):
    prepared = llama.prepare(FORMS[form])
    assert numbers(prepared) == {"input_ids": [IDS]}, "one row needs no mask and no positions"
    assert prepared.kwargs["input_ids"].dtype == torch.long
    assert torch.equal(prepared.tokens, torch.tensor([IDS]))
    assert prepared.text == ((TEXT,) if "text" in form or form == "a tuple" else None)
    assert prepared.batch == 1
    rows = prepared.rows[""]
    assert (rows.lengths, rows.offsets, rows.width) == ((6,), (0,), 6)


BATCHES = {
    "texts": [TEXT, "hi you"],
    "token lists": [IDS, SHORT],
    "tensors": [torch.tensor(IDS), torch.tensor(SHORT)],
}


@pytest.mark.parametrize("form", BATCHES)
def test_rows_are_padded_on_either_side(llama, form):
    right = llama.prepare(BATCHES[form])
    assert numbers(right) == {
        "input_ids": [IDS, [*SHORT, 1, 1, 1]],  # the configuration's pad token
        "attention_mask": [[1] * 6, [1, 1, 1, 0, 0, 0]],
    }
    assert (right.rows[""].lengths, right.rows[""].offsets) == ((6, 3), (0, 0))
    left = llama.prepare(BATCHES[form], side="left")
    assert numbers(left) == {
        "input_ids": [IDS, [1, 1, 1, *SHORT]],
        "attention_mask": [[1] * 6, [0, 0, 0, 1, 1, 1]],
        "position_ids": [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2]],
    }
    assert (left.rows[""].lengths, left.rows[""].offsets) == ((6, 3), (0, 3))


def test_rows_of_one_length_need_no_mask(llama):
    assert set(llama.prepare([SHORT, SHORT], side="left").kwargs) == {"input_ids"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "bert", "opt"])
def test_padding_on_either_side_is_invisible(family):
    model = ms.wrap(CASES[family].build())
    rows = [[20, 21, 22, 23, 24, 25], [30, 31, 32]]
    alone = [model.run([r], until="end").logits[0] for r in rows]
    for side in ("right", "left"):
        prepared = model.prepare(rows, side=side)
        with torch.no_grad():
            logits = model.module(**prepared.kwargs).logits
        for i, start in enumerate(prepared.rows[""].offsets):
            torch.testing.assert_close(logits[i, start : start + len(rows[i])], alone[i], rtol=1e-4, atol=1e-4)


def test_modules_get_only_arguments_that_they_take():
    assert "position_ids" not in ms.wrap(CASES["mamba"].build()).prepare([IDS, SHORT], side="left").kwargs
    assert "position_ids" not in ms.wrap(CASES["opt"].build()).prepare([IDS, SHORT], side="left").kwargs


def test_a_vocabulary_without_pad_uses_its_end_or_zero():
    for pad, end, expected in ((7, 9, 7), (None, 9, 9), (None, [8, 9], 8), (None, None, 0)):
        module = CASES["llama"].build()
        module.config.pad_token_id, module.config.eos_token_id = pad, end
        assert ms.wrap(module).prepare([IDS, SHORT]).kwargs["input_ids"][1, -1] == expected


# ---- chat ----

CHAT = [{"role": "user", "content": "hi you"}]
CHAT_IDS = [2, 12, 14, 15, 13]


def test_chat_messages_are_rendered_once_and_begin_once(chatty):
    for form in (CHAT, CHAT[0], [CHAT]):
        prepared = chatty.prepare(form)
        assert prepared.kwargs["input_ids"].tolist() == [CHAT_IDS]
        assert prepared.text == ("<s>user: hi you bot:",) or prepared.text == ("<s> user: hi you bot:",)
    own = chatty.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert own == CHAT_IDS


def test_several_conversations_and_spans_in_them(chatty):
    longer = [{"role": "user", "content": "the capital"}, {"role": "bot", "content": "Oslo"}, {"role": "user", "content": "hi"}]
    prepared = chatty.prepare([CHAT, longer], spans={"said": ["hi you", "capital"]})
    assert prepared.kwargs["input_ids"].tolist()[1] == [2, 12, 4, 5, 13, 10, 12, 14, 13]
    assert prepared.rows[""].spans == {"said": ((2, 4), (3, 4))}


def test_plain_text_beside_a_template_begins_as_usual(chatty):
    assert chatty.prepare("hi you").kwargs["input_ids"].tolist() == [SHORT]
    rendered = chatty.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    prepared = chatty.prepare(rendered, spans={"said": "you"})
    assert prepared.kwargs["input_ids"].tolist() == [CHAT_IDS], "a chat that the user rendered"
    assert prepared.rows[""].spans == {"said": ((3, 4),)}


def test_chat_without_a_template_or_a_tokenizer(llama):
    with pytest.raises(errors.InputError, match="chat template"):
        llama.prepare(CHAT)
    with pytest.raises(errors.MissingTokenizer):
        ms.wrap(CASES["llama"].build()).prepare(CHAT)


# ---- the module's own arguments, and tensors that are no tokens ----


def test_a_dictionary_goes_through_as_it_is(llama):
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    given = {"input_ids": torch.tensor([[0, 4, 5, 6], [7, 8, 9, 10]]), "attention_mask": mask, "use_cache": False}
    prepared = llama.prepare(given)
    assert prepared.kwargs == given
    assert (prepared.rows[""].lengths, prepared.rows[""].offsets) == ((3, 4), (1, 0))
    assert prepared.batch == 2
    embeds = llama.prepare({"inputs_embeds": torch.randn(2, 5, 48)})
    assert (embeds.rows[""].lengths, embeds.tokens, embeds.batch) == ((5, 5), None, 2)


def test_what_a_tokenizer_returns_is_such_a_dictionary(llama):
    encoded = llama.tokenizer([TEXT, "hi you"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = llama.module(**{k: v for k, v in encoded.items() if k != "token_type_ids"}).logits
    found = llama.run({k: v for k, v in encoded.items() if k != "token_type_ids"}, until="end").logits
    torch.testing.assert_close(found, logits)


def test_floating_tensors_go_to_the_first_argument():
    vit = ms.wrap(CASES["vit"].build())
    pixels = CASES["vit"].inputs()["pixel_values"]
    prepared = vit.prepare(pixels)
    assert list(prepared.kwargs) == ["pixel_values"]
    assert prepared.rows == {}
    assert prepared.batch == len(pixels)
    assert torch.equal(vit.run(pixels, until="end").logits, vit.module(pixels).logits)


def test_integers_go_to_the_first_argument_of_a_plain_module():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 2))
    ids = torch.tensor([[3, 1, 8]])
    assert torch.equal(ms.wrap(module).run(ids).output, module(ids))


def test_sources_and_targets():
    model = ms.wrap(CASES["t5"].build(), tokenizer=words(bos=False))
    prepared = model.prepare([TEXT, "hi you"], spans={"place": ["Oland", "you"]}, side="left")
    assert prepared.kwargs["decoder_input_ids"].tolist() == [[1], [1]]
    assert prepared.kwargs["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]], "sources are padded on the right"
    assert prepared.rows["encoder"].spans == {"place": ((3, 4), (1, 2))}
    assert prepared.rows[""].lengths == (1, 1)
    inputs = CASES["t5"].inputs()
    prepared = model.prepare(inputs, spans={"part": (9, 11)})
    assert (prepared.rows["encoder"].lengths, prepared.rows[""].lengths) == ((13,), (7,))
    assert prepared.rows["encoder"].spans == {"part": ((9, 11),)}, "spans are stretches of the source, as with text"
    value = model.run(inputs, spans={"part": (9, 11)}, read=at.encoder.layers[0].resid_post(pos=span("part")))
    assert value[at.encoder.layers[0].resid_post(pos=span("part"))].shape == (1, 2, 48)


# ---- spans ----


def test_spans_as_text_pairs_and_per_row(llama):
    spans = {
        "text": "Oland",
        "several words": "capital of",
        "part of a word": "lan",
        "pair": (1, 3),
        "from the end": (-3, -1),
        "pairs": [(0, 2), (2, 5)],
        "mixed": ["is", (-2, -1)],
    }
    prepared = llama.prepare([TEXT, "the capital of Oland"], spans=spans)
    assert dict(prepared.rows[""].spans) == {
        "text": ((4, 5), (4, 5)),
        "several words": ((2, 4), (2, 4)),
        "part of a word": ((4, 5), (4, 5)),
        "pair": ((1, 3), (1, 3)),
        "from the end": ((3, 5), (2, 4)),
        "pairs": ((0, 2), (2, 5)),
        "mixed": ((5, 6), (3, 4)),
    }
    ids = llama.run([TEXT, "the capital of Oland"], spans=spans, read=at.embed(pos=span("text").last))
    table = llama.module.get_input_embeddings().weight
    assert torch.equal(ids[at.embed(pos=span("text").last)], table[[7, 7]])


BAD_SPANS = {
    "not in the text": ("Bergen", "does not contain 'Bergen'"),
    "empty": ("", "does not contain"),
    "beyond": ((2, 9), "has 6 tokens"),
    "backwards": ((3, 2), "has 6 tokens"),
    "nothing": ((2, 2), "has 6 tokens"),
    "too early": ((-9, -1), "has 6 tokens"),
    "too few": ([(0, 1), (1, 2)], "2 entries for 1 rows"),
    "a number": (3, "piece of text or a"),
    "three numbers": ([(1, 2, 3)], "piece of text or a"),
    "between words": (" ", "no token"),
}


@pytest.mark.parametrize("name", BAD_SPANS)
def test_bad_spans(llama, name):
    given, message = BAD_SPANS[name]
    with pytest.raises(errors.PositionError, match=message):
        llama.prepare(TEXT, spans={"x": given})


def test_spans_of_inputs_without_text(llama):
    with pytest.raises(errors.PositionError, match="inputs are tokens"):
        llama.prepare([IDS], spans={"x": "Oland"})
    with pytest.raises(errors.PositionError, match="no tokens"):
        ms.wrap(CASES["vit"].build()).prepare(CASES["vit"].inputs()["pixel_values"], spans={"x": (0, 1)})
    with pytest.raises(errors.PositionError, match="no tokens"):
        ms.wrap(CASES["vit"].build()).prepare(CASES["vit"].inputs(), spans={"x": (0, 1)})
    with pytest.raises(errors.PositionError, match="no span 'y'"):
        llama.run(TEXT, spans={"x": (0, 1)}, read=at.embed(pos=span("y").last))


class Slow:
    """A tokenizer that cannot tell where its tokens stand."""

    def __call__(self, text, add_special_tokens=True, return_offsets_mapping=False):
        if return_offsets_mapping:
            raise NotImplementedError
        return {"input_ids": [4, 5]}


def test_a_tokenizer_without_offsets():
    with pytest.raises(errors.PositionError, match="does not tell"):
        ms.wrap(CASES["llama"].build(), tokenizer=Slow()).prepare(TEXT, spans={"x": "Oland"})


# ---- refusals ----

BAD = {
    "nothing": (None, errors.EmptyBatch, "nothing to run"),
    "an empty list": ([], errors.EmptyBatch, "empty"),
    "an empty row": ([[4], []], errors.EmptyBatch, "row 1"),
    "an empty text": (["hi", ""], None, ""),
    "an empty tensor": (torch.zeros(1, 0, dtype=torch.long), errors.EmptyBatch, r"\(1, 0\)"),
    "an empty tensor in a list": ([torch.tensor([4]), torch.zeros(0, dtype=torch.long)], errors.EmptyBatch, "no tokens"),
    "no rows": (torch.zeros(0, 4, dtype=torch.long), errors.EmptyBatch, r"\(0, 4\)"),
    "an empty dictionary": ({}, errors.EmptyBatch, "no tensors"),
    "an empty tensor in a dictionary": ({"input_ids": torch.zeros(2, 0, dtype=torch.long)}, errors.EmptyBatch, "input_ids"),
    "a mixture": (["hi", [4, 5]], errors.InputError, "mixture"),
    "a number": (7, errors.InputError, "not int"),
    "a set": ({"hi"}, errors.InputError, "not set"),
    "three axes": (torch.zeros(1, 2, 3, dtype=torch.long), errors.InputError, r"\(1, 2, 3\)"),
    "a scalar": (torch.tensor(4), errors.InputError, r"\(\)"),
    "booleans": (torch.tensor([True, False]), errors.InputError, "integers"),
    "booleans in lists": ([[True, False]], errors.InputError, "mixture"),
    "floats in lists": ([[1.5, 2.0]], errors.InputError, "mixture"),
    "floats": (torch.ones(1, 3), errors.InputError, "inputs_embeds"),
    "floats in a list of tensors": ([torch.tensor([1.7, 2.2])], errors.InputError, "integers"),
    "several rows in one of a list": ([torch.tensor([[4, 5], [6, 7]])], errors.InputError, "one row"),
    "beyond the vocabulary": ([[4, 96]], errors.InputError, "token 96 is outside the vocabulary of 96"),
    "below the vocabulary": ([[4, -1]], errors.InputError, "token -1"),
    "messages without a role": ([{"content": "hi"}], errors.InputError, "mixture"),
}


@pytest.mark.parametrize("name", BAD)
def test_inputs_that_cannot_be_run(llama, name):
    given, error, message = BAD[name]
    if error is None:  # the tokenizer begins every text, so that an empty one has a token
        assert llama.prepare(given).rows[""].lengths == (2, 1)
        error, message, given = errors.EmptyBatch, "row 1", ["hi", ""]
        model = ms.wrap(llama.module, tokenizer=words(bos=False))
    else:
        model = llama
    with pytest.raises(error, match=message) as caught:
        model.prepare(given)
    assert type(caught.value) is error


def test_text_without_a_tokenizer():
    model = ms.wrap(CASES["llama"].build())
    for text in ("hi", ["hi", "you"]):
        with pytest.raises(errors.MissingTokenizer, match="tokenizer"):
            model.run(text)


@pytest.mark.parametrize("inputs", ["the nonsense", ["the", "the nonsense"]])
@pytest.mark.parametrize("verb", ["run", "generate", "prepare"])
def test_a_word_that_a_tokenizer_of_whole_words_does_not_have(inputs, verb):
    model = ms.load("organism:two-hop")
    with pytest.raises(errors.UnknownWord, match="none of those that the tokenizer knows: the a of has plays s0"):
        getattr(model, verb)(inputs)


def test_other_mistakes_of_a_tokenizer_stay_what_they_are():
    class Broken(Slow):
        def __call__(self, *args, **kwargs):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ms.wrap(CASES["llama"].build(), tokenizer=Broken()).run(TEXT)
