"""A sweep there and back is the same sweep, and gives the numbers of `model.sweep`."""

import copy

import pytest
import torch

import mainspring as ms
from engine.portable.wires import TOKENS, model
from engine.tiny import WIDTH, ids, noise
from mainspring import at, span
from mainspring.engine.portable import Answer, Graph, Limits, Measure, Request
from mainspring.errors import InputError, MainspringError, Malformed, NotPortable, TooLarge
from mainspring.measure.metrics import logit_difference


def source():
    return model().run(ids(5, 7, seed=3), read=at.layers[:].resid_post, spans={"name": (1, 3)})


def grid(**axes):
    held = source()
    return ms.grid(at.layers[:].resid_post, lambda s: s.patch(held), layers=3, **(axes or {"pos": 5}))


def back(request):
    again = Request.from_bytes(*request.to_bytes())
    assert again == request
    assert again.to_document()[0] == request.to_document()[0]
    assert Request.from_document(*request.to_document()) == request
    return again


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_grid_travels_with_its_axes_and_gives_the_same_numbers():
    cells = grid()
    direct = model().sweep(TOKENS, cells, logit_difference(torch.tensor([3, 5]), 4))
    again = back(Request.sweep(TOKENS, cells, Answer((3, 5), (4,))))
    found = again.execute(model())
    assert found.labels == direct.labels == (("layer", (0, 1, 2)), ("pos", (0, 1, 2, 3, 4)))
    assert found.grid.shape == (3, 5, 2)
    close(found.values, direct.values)
    close(found.base, direct.base)
    assert found.plan == direct.plan, "a metric that travels is planned like any other"
    assert found.plan.saving > 1
    assert float((found.values - found.base).abs().max()) > 1e-2
    assert len(again.to_document()[0]["traces"]) == 1


@pytest.mark.parametrize(
    "metric",
    [
        Answer((3,), log=True),
        Answer((3, 1), (4, 2), pos=ms.selectors.PerRow((1, 2))),
        at.logits(pos=-1),
        at.layers[2].resid_post(pos=-1),
        Measure(at.layers[2].resid_post, lambda v: v.square().mean((1, 2))),
    ],
    ids=["log", "per row", "logits", "site", "function"],
)
def test_every_kind_of_metric(metric):
    cells = [
        at.layers[1].resid_post(pos=-1).scale(0),
        [at.layers[0].mlp.out.ablate(), at.layers[2].attn.z(head=1).add(noise(10))],
        at.layers[1].resid_post(pos=span("name").last).patch(source()),
        at.layers[2].attn.scores(key=0).mask(),
    ]
    spans = {"name": [(1, 3), (2, 6)]}
    direct = model().sweep(TOKENS, cells, metric, spans=spans, plain=True)
    request = Request.sweep(TOKENS, cells, metric, spans=spans).exported(model())
    found = back(request).execute(model())
    close(found.values, direct.values)
    close(found.base, direct.base)
    assert [len(c) for c in request.cells.sets(request.edits)] == [1, 2, 1, 1]


def test_functions_are_exported_once():
    def gate(v):
        return torch.where(v > 0.1, v * 2, v)

    cells = [at.layers[i].resid_post(pos=p).apply(gate) for i in range(3) for p in range(4)]
    request = Request.sweep(TOKENS, cells, Answer((3,)))
    with pytest.raises(NotPortable, match="exported"):
        request.to_document()
    document, _ = request.to_document(model())
    assert len(document["graphs"]) == 1
    assert len(document["edits"]) == len(document["sweep"]["cells"]) == 12
    again = back(request.exported(model()))
    assert isinstance(again.edits[0]["fn"], Graph)
    close(again.execute(model()).values, naive(cells))


def naive(cells):
    return torch.stack([model().run(TOKENS, edits=c, read=at.logits(pos=-1))[at.logits(pos=-1)][:, 3] for c in cells])


def test_labels_that_are_no_numbers():
    cells = grid(pos=[span("name"), slice(0, 2), [0, 2]])
    again = back(Request.sweep(TOKENS, cells, Answer((3,)), spans={"name": (1, 3)}))
    assert again.execute(model()).grid.shape == (3, 3, 2)
    assert [str(v) for v in again.cells.labels[1][1]] == ['span("name")', "0:2", "(0, 2)"]


def test_what_concerns_the_machine_is_said_where_it_runs(tmp_path):
    request, calls = Request.sweep(TOKENS, grid(), Answer((3,))), []
    file = tmp_path / "results"
    options = {"memory": 1e-4, "resume": file, "progress": lambda done, total: calls.append((done, total))}
    found = request.execute(model(), **options)
    assert calls[-1] == (30, 30)
    assert file.exists()
    close(found.values, request.execute(model(), plain=True).values)
    functions = [lambda v, k=k: v[..., k].mean(-1) for k in (3, 4)]
    for i, fn in enumerate(functions):  # two graphs of one shape are two metrics
        measured = Request.sweep(TOKENS, grid(), Measure(at.logits, fn)).exported(model())
        if i == 0:
            measured.execute(model(), resume=tmp_path / "one")
        else:
            with pytest.raises(InputError):
                measured.execute(model(), resume=tmp_path / "one")
    with pytest.raises(InputError, match="takes no memory"):
        Request.run(TOKENS).execute(model(), memory=2)
    with pytest.raises(InputError, match="takes no source"):
        request.execute(model(), source=3)


def test_a_sweep_of_functions_is_taken_up_again_when_they_are_graphs(tmp_path):
    def cells(k):
        return [[at.layers[layer].resid_post.apply(lambda v, k=k: v * k)] for layer in range(2)]

    file = tmp_path / "results"
    twice = Request.sweep(TOKENS, cells(2.0), Answer((3,))).exported(model())
    first = twice.execute(model(), resume=file)
    again = twice.execute(model(), resume=file)
    assert torch.equal(first.values, again.values)
    with pytest.raises(InputError, match="another sweep"):
        Request.sweep(TOKENS, cells(3.0), Answer((3,))).exported(model()).execute(model(), resume=file)
    with pytest.raises(NotPortable, match="resume= must recognise the sweep"):
        model().sweep(TOKENS, cells(2.0), Answer((3,)), resume=tmp_path / "other")


def test_sweeps_that_are_none():
    with pytest.raises(InputError, match="edit set"):
        Request.sweep(TOKENS, [], Answer((1,)))
    with pytest.raises(InputError, match="edit set"):
        Request.sweep(TOKENS, [at.embed.scale(0), []], Answer((1,)))
    with pytest.raises(NotPortable, match="metric="):
        Request.sweep(TOKENS, grid(), logit_difference(1, 2))
    with pytest.raises(NotPortable, match="metric"):
        Request.sweep(TOKENS, grid(), None)
    assert Request.sweep(TOKENS, grid(), Answer((1,))) != Request.sweep(TOKENS, grid(), Answer((2,)))
    assert Request.sweep(TOKENS, list(grid()), Answer((1,))) != Request.sweep(TOKENS, grid(), Answer((1,)))


# ---- from someone who means harm ----------------------------------------------------------------------------------------------

CELLS = [at.layers[i].resid_post.add(noise(WIDTH)) for i in range(3)]
DOCUMENT, TENSORS = Request.sweep(TOKENS, CELLS + CELLS[:1], Answer((3,))).to_document()
LABELS = [{"axis": "layer", "values": ["0", "1"]}, {"axis": "pos", "values": ["0", "1:3"]}]


def changed(**sweep):
    document = copy.deepcopy(DOCUMENT)
    document["sweep"] |= sweep
    return document


HOSTILE = {
    "more cells than edits": changed(cells=[1, 1, 1, 1, 1]),
    "fewer cells than edits": changed(cells=[1, 1, 1]),
    "a cell of nothing": changed(cells=[1, 1, 2, 0]),
    "a cell below zero": changed(cells=[1, 1, 3, -1]),
    "a giant cell": changed(cells=[2**31]),
    "cells that are true": changed(cells=[True, True, True, True]),
    "no cells": changed(cells=[]),
    "labels that do not count": changed(labels=LABELS[:1]),
    "an axis twice": changed(labels=[LABELS[0], LABELS[0]]),
    "an axis of nothing": changed(labels=[{"axis": "pos", "values": []}]),
    "an axis with a strange name": changed(labels=[LABELS[0], LABELS[1] | {"axis": "../x"}]),
    "a label that is no index": changed(labels=[LABELS[0], LABELS[1] | {"values": ["0", "os.system"]}]),
    "a label with a giant number": changed(labels=[LABELS[0], LABELS[1] | {"values": ["0", "9" * 30]}]),
    "a label that hides": changed(labels=[LABELS[0], LABELS[1] | {"values": ["0", 'span("a\u200b")']}]),
    "a hundred axes": changed(labels=LABELS * 50),
    "no metric": changed(metric=None),
    "a metric of a graph that is not there": changed(metric={"measure": "logits", "graph": 0}),
    "a metric of nowhere": changed(metric={"site": "layers.1.soul"}),
    "a runner's business": changed(memory=1e9),
    "a path": changed(resume="/etc/passwd"),
    "a run with cells": DOCUMENT | {"kind": "run"},
    "a sweep without cells": {k: v for k, v in DOCUMENT.items() if k != "sweep"},
    "a sweep that reads": DOCUMENT | {"read": ["embed"]},
    "a sweep that keeps originals": DOCUMENT | {"original": True},
    "a sweep that stops": DOCUMENT | {"until": "embed"},
    "a sweep with a gradient": DOCUMENT | {"grad_of": {"site": "logits"}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sweeps_are_refused(name):
    with pytest.raises(MainspringError):
        Request.from_document(HOSTILE[name], TENSORS)


def test_the_valid_one_is_read():
    assert len(Request.from_document(changed(labels=LABELS), TENSORS).cells.sizes) == 4


def test_too_many_cells():
    with pytest.raises(TooLarge, match="cells"):
        Request.from_document(DOCUMENT, TENSORS, Limits(cells=3))
    with pytest.raises(TooLarge, match="edits"):
        Request.from_document(DOCUMENT, TENSORS, Limits(edits=3))
    with pytest.raises(TooLarge, match="cells"):
        Request.from_document(changed(cells=[1] * 60_000), TENSORS)
    with pytest.raises(Malformed):
        Request.from_document(changed(cells=[1] * 70_000), TENSORS)
