"""Edits and traces on disk: what is read back equals what was written, and damage is named."""

import json
import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at, errors, span
from mainspring.edits import OPERATIONS
from mainspring.rows import Rows
from mainspring.storage import document_of, edits_of, load_edits, load_trace, save_edits, save_trace
from mainspring.trace import Trace, Values

ROWS = Rows((4, 2), (0, 2), 4, {"subject": ((1, 3), (0, 1))})


def tensor(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def trace(*sites, seed=0):
    values = {ms.parse_site(s): tensor(2, 4, 6, seed=seed + i) for i, s in enumerate(sites)}
    return Trace(Values(values, {"": ROWS, "encoder": Rows.full(2, 3)}, {"": 3, "encoder": 2}))


def same(a, b):
    """Equality of edits in which traces count by what they hold of the site."""
    if [(e.site, e.op, [k for k, _ in e.params]) for e in a] != [(e.site, e.op, [k for k, _ in e.params]) for e in b]:
        return False
    return all(
        _same_value(one, x, y)
        for one, two in zip(a, b, strict=True)
        for (_, x), (_, y) in zip(one.params, two.params, strict=True)
    )


def _same_value(edit, x, y):
    if not isinstance(x, Trace):
        return type(x) is type(y) and ms.Edit(at.embed, "set", (("value", x),)) == ms.Edit(at.embed, "set", (("value", y),))
    asked = edit["site"] or edit.site
    needed = {s: v for s, v in x.read.items() if (s.name, s.stack) == (asked.name, asked.stack)}
    return (
        needed.keys() == set(y.read)
        and all(torch.equal(v, y[s]) and v.dtype == y[s].dtype for s, v in needed.items())
        and (x.read.rows, x.read.n_layers, x.read.grown) == (y.read.rows, y.read.n_layers, y.read.grown)
        and all(r.spans == y.read.rows[k].spans for k, r in x.read.rows.items())
    )


# ---- every edit there is ----

indices = st.one_of(
    st.integers(-4, 40),
    st.builds(slice, st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 9), st.none() | st.integers(1, 3)),
    st.lists(st.integers(-9, 9), min_size=1, max_size=3, unique=True),
    st.builds(lambda n, p: span(n) if p is None else span(n)[p], st.text(min_size=1, max_size=4), st.none() | st.integers(-3, 3)),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(torch.tensor),
)
layers = st.one_of(st.integers(-3, 3), st.just(slice(None)), st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
words = st.sampled_from(["attn.out", "mlp.post", "resid_post", "attn.z", "cross.k"])


@st.composite
def sites(draw):
    where = draw(st.sampled_from(["layer", "encoder", "top", "module"]))
    if where == "module":
        site = at.module[draw(st.sampled_from(['a."b".0', "encoder", ""]))].output
    elif where == "top":
        site = at.embed
    else:
        path = at.layers[draw(layers)] if where == "layer" else at.encoder.layers[draw(layers)]
        for word in draw(words).split("."):
            path = getattr(path, word)
        site = path
    selectors = draw(st.dictionaries(st.sampled_from(["pos", "row", "dim", "head", "step"]), indices, max_size=2))
    return site(**selectors)


finite = st.floats(allow_nan=False, allow_infinity=False)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
tensors = st.builds(
    lambda s, seed, d: tensor(*s, seed=seed, dtype=d), st.lists(st.integers(1, 3), max_size=3), st.integers(0, 99), dtypes
)
values = finite | tensors
SOURCE = trace("layers.0.resid_post", "layers.2.resid_post", "layers.1.attn.out", "embed", "encoder.layers.1.resid_post")
OTHER = trace("layers.0.resid_post", "embed", seed=9)
sources = st.sampled_from([SOURCE, OTHER])


@st.composite
def edits(draw):
    site, verb = draw(sites()), draw(st.sampled_from([o for o in OPERATIONS if o != "apply"]))
    if verb in ("set", "add", "scale"):
        return getattr(site, verb)(draw(values))
    if verb == "ablate":
        kind = draw(st.sampled_from(["zero", "mean", "resample"]))
        over = draw(st.sampled_from([("batch",), ("pos",), ("batch", "pos")]))
        return site.ablate(kind, of=draw(st.none() | sources), over=over, seed=draw(st.integers(0, 9)))
    if verb == "patch":
        return site.patch(
            draw(sources), site=draw(st.none() | sites()), row=draw(st.none() | indices), pos=draw(st.none() | indices)
        )
    if verb == "project_out":
        return site.project_out(tensor(draw(st.integers(1, 3)), 4))
    if verb == "clamp":
        low = draw(st.none() | finite)
        return site.clamp(low, draw(finite.filter(lambda x: low is None or x >= low)))
    weights = at.layers[draw(layers)].attn.scores(key=draw(indices))
    return weights.mask(draw(st.none() | st.just(torch.tensor([True, False]))))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(edits(), max_size=4))
def test_a_document_gives_back_equal_edits(given):
    document, held = document_of(given)
    document = json.loads(json.dumps(document))  # it is JSON all through
    assert all(isinstance(t, torch.Tensor) for t in held.values())
    back = edits_of(document, held)
    assert same(given, back)
    assert [str(e.site) for e in back] == [str(e.site) for e in given]


def test_every_operation_but_apply_was_tried():
    made = [
        at.embed.set(1.0),
        at.embed.add(tensor(6)),
        at.embed.scale(0.1),
        at.embed.ablate("mean", of=SOURCE, over="pos"),
        at.embed(row=1).patch(row=0),
        at.embed.patch(SOURCE, site=at.layers[0].resid_post, row=1, pos=span("subject").last),
        at.embed.project_out(tensor(2, 6)),
        at.embed.clamp(low=-1.0),
        at.layers[:].attn.pattern(head=[0, 2], key=span("subject")).mask(torch.tensor([True])),
    ]
    assert {e.op for e in made} == set(OPERATIONS) - {"apply"}
    assert same(made, edits_of(*document_of(made)))


def test_a_trace_is_kept_once_and_only_as_far_as_it_is_needed():
    whole = trace(*(f"layers.{i}.resid_post" for i in range(3)), "embed", "layers.0.attn.out")
    document, held = document_of([at.layers[i].resid_post(pos=p).patch(whole) for i in range(3) for p in range(2)])
    assert len(held) == 3
    assert len(document["traces"]) == 1


def test_what_is_kept_is_a_copy():
    value = tensor(6)
    _, held = document_of(at.embed.add(value))
    value.zero_()
    assert not any((t == 0).all() for t in held.values())


def test_functions_are_not_written():
    with pytest.raises(errors.NotPortable, match=r"embed\.apply"):
        document_of(at.embed.apply(torch.relu))
    document, held = document_of(at.embed.scale(2.0))
    document["edits"][0]["op"] = "apply"
    with pytest.raises(errors.NotPortable):
        edits_of(document, held)


# ---- files ----


def test_files_give_back_what_a_run_does(tmp_path):
    model = ms.wrap(CASES["llama"].build())
    clean = model.run([[20, 21, 22, 23], [30, 31]], read=[at.layers[:].resid_post, at.logits])
    changes = [
        at.layers[1].resid_post(pos=-1).patch(clean, row=0, pos=1),
        at.layers[2].attn.scores(key=0).mask(),
        at.layers[0].resid_post.ablate("mean", of=clean),
    ]
    save_edits(changes, tmp_path / "changes")
    assert sorted(os.listdir(tmp_path)) == ["changes.json", "changes.safetensors"]
    back = load_edits(str(tmp_path / "changes.json"))
    inputs = [[40, 41, 42], [50, 51, 52, 53]]
    assert torch.equal(model.run(inputs, edits=back, until="end").logits, model.run(inputs, edits=changes, until="end").logits)
    assert same(changes, load_edits(tmp_path / "changes"))
    assert same(changes, load_edits(tmp_path / "changes.safetensors"))


def test_names_with_dots_stay_apart(tmp_path):
    for factor in (0.5, 0.25):
        save_edits(at.embed.scale(factor), tmp_path / f"scale-{factor}")
    assert load_edits(tmp_path / "scale-0.5")[0]["value"] == 0.5
    assert load_edits(tmp_path / "scale-0.25")[0]["value"] == 0.25


def test_edits_that_were_generated_with_travel(tmp_path):
    model = ms.wrap(CASES["llama"].build())
    source = model.generate([[20, 21, 22]], read=at.layers[1].resid_post, max_new_tokens=4)
    edit = at.layers[1].resid_post(step=1).patch(source, site=at.layers[1].resid_post(step=2))
    save_edits(edit, tmp_path / "edit")
    found = [model.generate([[30, 31]], edits=e, max_new_tokens=4, read=at.logits) for e in (edit, load_edits(tmp_path / "edit"))]
    assert torch.equal(found[0].logits, found[1].logits)


def damaged(change):
    document, held = document_of([at.embed.add(tensor(6)), at.layers[0].resid_post(pos=1).patch(SOURCE)])
    change(document)
    return document, held


DAMAGE = {
    "another kind": (lambda d: d.update(mainspring="cake"), errors.EditError, "not a document of edits"),
    "a newer version": (lambda d: d.update(version=99), errors.EditError, "version 99"),
    "no version": (lambda d: d.pop("version"), errors.EditError, "version None"),
    "no edits": (lambda d: d.pop("edits"), errors.BrokenCheckpoint, "edits"),
    "edits of no form": (lambda d: d.update(edits=[3]), errors.BrokenCheckpoint, "damaged"),
    "no site": (lambda d: d["edits"][0].pop("site"), errors.BrokenCheckpoint, "site"),
    "an unknown site": (lambda d: d["edits"][0].update(site="layers.0.soul"), errors.UnknownSite, "soul"),
    "a site of no form": (lambda d: d["edits"][0].update(site=["embed"]), errors.SiteError, "list"),
    "an unknown operation": (lambda d: d["edits"][0].update(op="explode"), errors.EditError, "explode"),
    "a method that is no operation": (lambda d: d["edits"][0].update(op="expand"), errors.EditError, "expand"),
    "an unknown parameter": (lambda d: d["edits"][0]["params"].update(loud=1), errors.BrokenCheckpoint, "loud"),
    "a parameter that is missing": (lambda d: d["edits"][0]["params"].clear(), errors.BrokenCheckpoint, "value"),
    "a tensor that is missing": (
        lambda d: d["edits"][0]["params"].update(value={"tensor": "t99"}),
        errors.BrokenCheckpoint,
        "t99",
    ),
    "a value that is none": (lambda d: d["edits"][0]["params"].update(value="much"), errors.EditError, "add"),
    "an infinite value": (lambda d: d["edits"][0]["params"].update(value=float("inf")), errors.NotFinite, "inf"),
    "a reference of no kind": (lambda d: d["edits"][0]["params"].update(value={"code": "x"}), errors.BrokenCheckpoint, "code"),
    "two references": (
        lambda d: d["edits"][0]["params"].update(value={"tensor": "t0", "trace": 0}),
        errors.BrokenCheckpoint,
        "damaged",
    ),
    "a trace that is missing": (
        lambda d: d["edits"][1]["params"].update(source={"trace": 5}),
        errors.BrokenCheckpoint,
        "damaged",
    ),
    "a trace without rows": (lambda d: d["traces"][0].pop("rows"), errors.BrokenCheckpoint, "rows"),
    "a trace of words": (lambda d: d.update(traces="none"), errors.BrokenCheckpoint, "damaged"),
}


@pytest.mark.wrong_types
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_documents(name):
    change, error, message = DAMAGE[name]
    with pytest.raises(error, match=message) as caught:
        edits_of(*damaged(change))
    assert type(caught.value) is error


@pytest.mark.wrong_types
@pytest.mark.parametrize("document", [None, [], "edits", 3], ids=str)
def test_documents_of_no_form(document):
    with pytest.raises(errors.EditError, match="not a document"):
        edits_of(document, {})


@pytest.mark.wrong_types
def test_damaged_files(tmp_path):
    with pytest.raises(errors.LoadError, match="no file"):
        load_edits(tmp_path / "nothing")
    save_edits(at.embed.add(tensor(6)), tmp_path / "a")
    save_edits(at.embed.add(tensor(6, seed=1)), tmp_path / "b")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-3])
    with pytest.raises(errors.BrokenCheckpoint, match=r"a\.safetensors"):
        load_edits(tmp_path / "a")
    shutil.copy(tmp_path / "b.safetensors", tmp_path / "a.safetensors")
    with pytest.raises(errors.BrokenCheckpoint, match="does not belong"):
        load_edits(tmp_path / "a")
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(errors.LoadError, match=r"no file .*a\.safetensors"):
        load_edits(tmp_path / "a")
    for text in ("{", "\x00\xff"):
        (tmp_path / "b.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(errors.BrokenCheckpoint, match=r"b\.json is not JSON"):
            load_edits(tmp_path / "b")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(errors.EditError, match="not a document"):
        load_edits(tmp_path / "b")


@pytest.mark.parametrize("fails", [("write_bytes", 0), ("write_bytes", 1), ("replace", 0)], ids=str)
def test_a_failure_leaves_the_old_files_and_no_halves(tmp_path, monkeypatch, fails):
    what, after = fails
    save_edits(at.embed.add(tensor(6)), tmp_path / "edits")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    calls = []

    def failing(own):
        def call(*args):
            calls.append(1)
            if len(calls) > after:
                if what == "write_bytes":
                    own(args[0], args[1][: len(args[1]) // 2])
                raise OSError("disk full")
            return own(*args)

        return call

    if what == "replace":
        monkeypatch.setattr(os, "replace", failing(os.replace))
    else:
        monkeypatch.setattr("pathlib.Path.write_bytes", failing(type(tmp_path).write_bytes))
    for name in ("edits", "others"):
        with pytest.raises(OSError, match="disk full"):
            save_edits(at.embed.add(tensor(6, seed=2)), tmp_path / name)
        calls.clear()
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# ---- traces ----


def test_a_trace_gives_back_values_gradients_logits_tokens_and_rows(tmp_path):
    model = ms.wrap(CASES["llama"].build())
    edit = at.layers[0].resid_post(pos=0).scale(2.0)
    read = [at.layers[:].resid_post, at.layers[1].attn.pattern(head=1)]
    spans = {"subject": [(1, 3), (0, 1)]}
    made = model.run([[20, 21, 22, 23], [30, 31]], read=read, edits=edit, spans=spans, grad_of=lambda t: t.logits[:, -1, 5])
    made.save(tmp_path / "trace.safetensors")
    back = Trace.load(tmp_path / "trace.safetensors")
    for mine, theirs in ((made.read, back.read), (made.grad, back.grad)):
        assert {s: v.tolist() for s, v in mine.items()} == {s: v.tolist() for s, v in theirs.items()}
        assert mine.n_layers == theirs.n_layers
    assert torch.equal(back.logits, made.logits)
    assert torch.equal(back.tokens, made.tokens)
    assert torch.equal(back.metric, made.metric)
    assert back.rows == made.rows
    assert back.rows.spans == made.rows.spans
    assert torch.equal(
        back[at.layers[:].resid_post(pos=span("subject").last)], made[at.layers[:].resid_post(pos=span("subject").last)]
    )
    assert torch.equal(back.row(1)[at.layers[2].resid_post], made.row(1)[at.layers[2].resid_post])
    with pytest.raises(errors.NotRecorded, match="gradient"):
        back.grad[at.embed]
    assert os.listdir(tmp_path) == ["trace.safetensors"]


def test_a_trace_that_stopped_early_says_so_again(tmp_path):
    model = ms.wrap(CASES["llama"].build())
    made = model.run([[20, 21]], read=at.layers[0].resid_post)
    made.save(tmp_path / "t")
    back = Trace.load(tmp_path / "t")
    assert made.stopped_after == back.stopped_after == "layers.0"
    with pytest.raises(errors.NotRecorded, match=r"stopped after layers\.0"):
        _ = back.logits


def test_logits_that_were_read_are_written_once(tmp_path):
    model = ms.wrap(CASES["llama"].build())
    made = model.run([[20, 21]], read=at.logits)
    made.save(tmp_path / "t")
    assert torch.equal(Trace.load(tmp_path / "t").logits, made.logits)
    assert (tmp_path / "t").stat().st_size < 2 * made.logits.numel() * 4


def test_generations_and_texts(tmp_path):
    from words import words as tokenizer

    model = ms.wrap(CASES["llama"].build(), tokenizer=tokenizer())
    made = model.run(["the capital", "hi"], read=at.embed)
    made.save(tmp_path / "t")
    assert Trace.load(tmp_path / "t").text == ("the capital", "hi")
    made = model.generate(["the capital", "hi"], read=at.embed, max_new_tokens=4)
    made.save(tmp_path / "g")
    back = Trace.load(tmp_path / "g")
    assert torch.equal(back.tokens, made.tokens)
    assert torch.equal(back[at.embed(step=2)], made[at.embed][:, -2])
    assert back.text == made.text


def test_bfloat16_stays_bit_by_bit(tmp_path):
    model = ms.wrap(CASES["llama"].build().to(torch.bfloat16))
    made = model.run([[20, 21, 22]], read=at.layers[1].resid_post, until="end")
    save_trace(made, tmp_path / "t")
    back = load_trace(tmp_path / "t")
    assert back[at.layers[1].resid_post].dtype == torch.bfloat16
    assert torch.equal(back[at.layers[1].resid_post], made[at.layers[1].resid_post])
    save_edits(at.embed.add(made[at.layers[1].resid_post][0, 0]), tmp_path / "e")
    assert load_edits(tmp_path / "e")[0]["value"].dtype == torch.bfloat16


def test_files_that_are_no_traces(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(errors.LoadError, match="no file"):
        Trace.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(errors.BrokenCheckpoint, match="damaged"):
        Trace.load(tmp_path / "text")
    for name, metadata, error, message in (
        ("plain", None, errors.BrokenCheckpoint, "no trace"),
        ("words", {"mainspring": "not json"}, errors.BrokenCheckpoint, "no trace"),
        ("list", {"mainspring": "[]"}, errors.BrokenCheckpoint, "damaged"),
        ("newer", {"mainspring": '{"version": 7}'}, errors.EditError, "version 7"),
        ("bare", {"mainspring": '{"version": 1}'}, errors.BrokenCheckpoint, "damaged"),
    ):
        save_file({"x": torch.ones(1)}, tmp_path / name, metadata)
        with pytest.raises(error, match=message):
            Trace.load(tmp_path / name)
