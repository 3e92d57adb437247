"""Every bad request has its typed error, says what to do, and leaves the model as it was (the `model` fixture proves that)."""

import pytest
import torch

from engine.tiny import ids, noise
from mainspring import at
from mainspring.edits import Edit
from mainspring.errors import (
    DtypeMismatch,
    EditError,
    EditNeverFired,
    EmptyBatch,
    InputError,
    LayerOutOfRange,
    MissingTokenizer,
    NotFinite,
    PositionError,
    SelectorError,
    ShapeMismatch,
    SiteError,
    SiteRefused,
    UnknownSite,
)
from mainspring.selectors import span

TOKENS = torch.tensor(ids(6, 6))
RAGGED = ids(6, 3)
z, resid = at.layers[1].attn.z, at.layers[1].resid_post


def rejects(model, error, *says, inputs=TOKENS, hint=None, **options):
    ran = []
    handle = model.module.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with pytest.raises(error) as caught:
            model.run(inputs, **options)
    finally:
        handle.remove()
    assert type(caught.value) is error, f"{type(caught.value).__name__} is not {error.__name__}"
    for text in says:
        assert text in str(caught.value), f"{text!r} is not in {caught.value}"
    return ran


def before_the_model(*args, **kwargs):
    assert rejects(*args, **kwargs) == [], "the model ran, though it could have been known before that this cannot work"


def test_unknown_sites(model):
    before_the_model(model, UnknownSite, "attn.z", "did you mean", read="layers.1.atn.z")
    before_the_model(model, UnknownSite, "no module 'no.such'", read='module["no.such"].output')
    with pytest.raises(UnknownSite, match="did you mean 'resid_post'"):
        at.layers[0].resid_pots  # noqa: B018


def test_layers_out_of_range(model):
    before_the_model(model, LayerOutOfRange, "layers 0 to 2", read=at.layers[3].resid_post)
    before_the_model(model, LayerOutOfRange, "layers 0 to 2", edits=at.layers[-4].resid_post.scale(2.0))
    before_the_model(model, LayerOutOfRange, "layers 0 to 2", read=at.layers[7:].resid_post)


def test_heads_on_the_wrong_axis(llama):
    before_the_model(llama, SelectorError, "kv_head=", "shared by groups", read=at.layers[1].attn.k(head=1))
    before_the_model(llama, SelectorError, "kv_head=", edits=at.layers[1].attn.v(head=1).scale(2.0))
    before_the_model(llama, SelectorError, "no kv_head axis", read=z(kv_head=1))
    before_the_model(llama, SelectorError, "no neuron axis", "its axes are", read=resid(neuron=1))
    before_the_model(llama, SelectorError, "query= and key=", read=at.layers[1].attn.pattern(pos=1))


def test_indices_beyond_an_axis(llama):
    before_the_model(llama, SelectorError, "head=4 is out of range", "0 to 3", read=z(head=4))
    before_the_model(llama, SelectorError, "kv_head=2 is out of range", "0 to 1", edits=at.layers[1].attn.k(kv_head=2).ablate())
    before_the_model(llama, SelectorError, "head=4 is out of range", edits=at.layers[1].attn.scores(head=4).mask())
    before_the_model(llama, SelectorError, "dim=24 is out of range", read=resid(dim=24))
    before_the_model(llama, SelectorError, "neuron=36 is out of range", edits=at.layers[0].mlp.post(neuron=36).scale(0.0))
    before_the_model(llama, SelectorError, "row=2 is out of range", read=resid(row=2))
    before_the_model(llama, SelectorError, "vocab=40 is out of range", edits=at.logits(vocab=40).add(1.0))


def test_positions_beyond_the_text(model):
    before_the_model(model, PositionError, "position 6 is beyond the text", "0 to 5", read=resid(pos=6))
    before_the_model(model, PositionError, "position -7", edits=resid(pos=-7).scale(2.0))
    before_the_model(model, PositionError, "row 1, which has 3 tokens", inputs=RAGGED, edits=resid(pos=4).scale(2.0))
    before_the_model(model, PositionError, "3 entries for a batch of 2", read=resid(pos=torch.tensor([1, 2, 3])))
    before_the_model(model, PositionError, "step= picks generated tokens", edits=resid(step=0).scale(2.0))
    before_the_model(model, PositionError, "beyond the text", edits=at.layers[0].attn.pattern(query=9).scale(2.0))


def test_spans(model):
    before_the_model(model, PositionError, "no span 'subject'", "Pass spans=", edits=resid(pos=span("subject")).scale(2.0))
    before_the_model(
        model, PositionError, "did you mean 'subject'", read=resid(pos=span("subjct").last), spans={"subject": (0, 2)}
    )
    before_the_model(model, PositionError, "3 of a span of 2", read=resid(pos=span("subject")[3]), spans={"subject": (0, 2)})
    before_the_model(model, PositionError, "the row has 6 tokens", spans={"subject": (4, 9)})
    before_the_model(model, PositionError, "2 rows", spans={"subject": [(0, 1), (0, 1), (0, 1)]})
    before_the_model(model, PositionError, "given as text, but the inputs are tokens", spans={"subject": "Oland"})


def test_ragged_reads(model):
    assert rejects(model, PositionError, "different number of tokens", "row=", inputs=RAGGED, read=resid(pos=slice(1, None)))


def test_shapes(model):
    before_the_model(model, ShapeMismatch, "(25,)", "[2, 6, 24]", edits=resid.add(noise(25)))
    before_the_model(model, ShapeMismatch, "(24,)", "[2, 6, 4, ", edits=z.add(noise(24)))
    before_the_model(model, ShapeMismatch, "[2, 24]", edits=resid(pos=0).set(noise(2, 6, 24)))
    before_the_model(model, ShapeMismatch, "[2, 6, 3]", edits=resid(dim=[1, 2, 3]).set(noise(2)))
    before_the_model(model, ShapeMismatch, "directions of 5 entries", "has 24", edits=resid.project_out(noise(5)))
    before_the_model(
        model, ShapeMismatch, "does not broadcast", edits=at.layers[0].attn.scores.mask(torch.ones(5, 5, dtype=torch.bool))
    )
    other = model.run(torch.tensor(ids(4, 4)), read=resid)
    before_the_model(model, ShapeMismatch, "name the positions to patch with pos=", edits=resid.patch(other))
    three = model.run(torch.tensor(ids(6, 6, 6)), read=[resid, at.layers[1].attn.pattern])
    before_the_model(model, ShapeMismatch, "choose one with row=", edits=resid.patch(three))
    before_the_model(
        model,
        ShapeMismatch,
        "query= and key=",
        inputs=RAGGED,
        edits=at.layers[1].attn.pattern.patch(three, site=at.layers[1].attn.pattern),
    )
    assert rejects(model, ShapeMismatch, "returned shape (2, 6)", edits=resid.apply(lambda v: v.sum(-1)))
    assert rejects(model, ShapeMismatch, 'average over "pos" too', edits=resid.ablate("mean", over="batch", of=other))


def test_dtypes(model):
    before_the_model(
        model, DtypeMismatch, "torch.float64", "cast it with .to(torch.float32)", edits=resid.add(noise(24, dtype=torch.float64))
    )
    with pytest.raises(DtypeMismatch, match="float"):
        resid.add(torch.ones(24, dtype=torch.long))
    with pytest.raises(DtypeMismatch, match="boolean"):
        at.layers[0].attn.scores.mask(torch.ones(6, 6))
    with pytest.raises(DtypeMismatch, match="not a number"):
        resid.scale(True)
    assert rejects(model, DtypeMismatch, "returned torch.float64", edits=resid.apply(lambda v: v.double()))


def test_an_edit_that_never_fires(model):
    edit = at.layers[2].mlp.out.scale(2.0)
    assert rejects(model, EditNeverFired, str(edit), "never fired", edits=edit, until="layers.0.mlp.out")
    assert rejects(model, EditNeverFired, "select no token", edits=resid(pos=slice(6, 9)).scale(2.0))
    assert rejects(model, EditNeverFired, "select no token", edits=[resid.scale(1.0), at.embed(pos=slice(3, 3)).scale(2.0)])


def test_missing_tokenizer(model):
    before_the_model(model, MissingTokenizer, "ms.wrap(module, tokenizer=...)", inputs="the capital of")
    before_the_model(model, MissingTokenizer, "tokenizer", inputs=[{"role": "user", "content": "hello"}])
    before_the_model(model, MissingTokenizer, "processor", inputs="look", images=[object()])


@pytest.mark.parametrize(
    "inputs", [None, [], [[]], [[1, 2], []], torch.zeros(0, 3, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long), {}]
)
def test_empty_batches(model, inputs):
    before_the_model(model, EmptyBatch, inputs=inputs)


def test_inputs_that_are_no_tokens(model):
    before_the_model(model, InputError, "outside the vocabulary of 40", inputs=[[1, 40]])
    for row in ([1, 40], [1, -1], [40] * 600):  # of a tensor of tokens, the embedding says so
        rejects(model, InputError, "outside the vocabulary of 40", inputs=torch.tensor([row]), edits=resid.scale(2.0))
    before_the_model(model, InputError, "integers", inputs=torch.tensor([[True, False]]))
    before_the_model(model, InputError, "[batch, pos]", inputs=torch.ones(1, 2, 3, dtype=torch.long))
    before_the_model(model, InputError, "not a mixture", inputs=["text", [1, 2]])
    before_the_model(model, InputError, "not float", inputs=1.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")]), torch.full((24,), float("-inf"))])
def test_values_that_are_not_finite(bad):
    for verb in (resid.set, resid.add, resid.scale):
        with pytest.raises(NotFinite, match=r"NaN|nan|inf"):
            verb(bad)


def test_edits_that_make_no_sense():
    for make, says in [
        (lambda: resid.ablate("median"), '"zero", "mean" and "resample"'),
        (lambda: resid.ablate("mean", over="head"), '"batch", "pos" or both'),
        (lambda: resid.patch(), "needs a trace"),
        (lambda: resid.patch(site=at.embed, row=1), "needs a trace"),
        (lambda: resid.mask(), "only attention scores and patterns"),
        (lambda: resid.clamp(), "low=, high= or both"),
        (lambda: resid.clamp(2.0, 1.0), "low is above high"),
        (lambda: resid.project_out(torch.zeros(24)), "zero vector"),
        (lambda: resid.apply(3), "takes a function"),
        (lambda: resid.set("x"), "a number or a tensor"),
        (lambda: Edit(resid, "explode"), "operations are"),
    ]:
        with pytest.raises(EditError) as caught:
            make()
        assert says in str(caught.value)


def test_edits_that_make_no_sense_here(model):
    before_the_model(model, EditError, "verbs of a site", edits="layers.0.mlp.out")
    assert rejects(model, EditError, "returned NoneType", edits=resid.apply(lambda v: None))
    assert rejects(model, EditError, "the batch has one", inputs=TOKENS[:1], edits=resid.ablate("resample"))
    before_the_model(model, EditError, "different length", inputs=RAGGED, edits=at.layers[0].attn.pattern.ablate("mean"))
    clean = model.run(TOKENS, read=at.layers[:].resid_post)
    before_the_model(model, EditError, "one layer", edits=resid.patch(clean, site=at.layers[:].resid_post))


def test_sites_that_the_architecture_lacks(llama, gpt2):
    for model, site in [
        (gpt2, at.layers[0].mlp.up),
        (llama, at.layers[0].ssm.y),
        (llama, at.layers[0].cross.z),
        (llama, at.vision.embed),
    ]:
        reason = model.can(site).reason
        assert reason
        assert not model.can(site)
        words = reason.removeprefix("this model ")
        before_the_model(model, SiteRefused, words, read=site)
        before_the_model(model, SiteRefused, words, edits=site.scale(2.0))
    before_the_model(llama, SiteRefused, "images", read=at.image_tokens)


def test_reads_that_are_no_sites(model):
    before_the_model(model, SiteError, "read= takes sites", read=3)
    before_the_model(model, SiteError, "stops after a layer", read=resid, until=at.final_norm)


def test_one_bad_edit_among_many_stops_all(model):
    before_the_model(model, ShapeMismatch, edits=[resid.scale(2.0), at.embed.add(0.1), resid.add(noise(7))])
