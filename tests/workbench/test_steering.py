"""Steering through the application: by two texts, by what a truth names, and by a file; and the prompts that pages begin with."""

import pytest
import torch

from workbench.asking import TEXT, ask, run, told, words


def test_steer(client):
    examples = ask(client, "/api/models/examples", model=TEXT)
    body = {"model": TEXT, "prompt": examples["clean"], "plus": [examples["other"]], "minus": [examples["clean"]], "layer": 2}
    events = told(client, "/api/steer", **body, words=4, others=examples["off"])
    sides = {side: "".join(w["text"] for w in words(events) if w["side"] == side) for side in ("steered", "untouched")}
    assert sides["steered"].split()[0] != sides["untouched"].split()[0]
    printed, _ = run(dict(events)["start"]["code"])
    assert printed.split() == sides["steered"].split()
    assert dict(events)["off"]["mean"] >= 0
    long = told(client, "/api/steer", **body, words=256)
    assert long[-1][0] == "end"  # a model with few positions stops where they end
    for wrong in ({"plus": []}, {"layer": 99}):
        assert told(client, "/api/steer", **(body | wrong))[-1][0] == "error"


def steered(events):
    return "".join(word["text"] for word in words(events) if word["side"] == "steered").split()


def test_steering_by_what_a_truth_names(client):
    """Of a planted organism the code of every value; adding that of an answer gives that answer."""
    examples = ask(client, "/api/models/examples", model=TEXT)
    known = {one["name"]: one for one in ask(client, "/api/steer/known", model=TEXT)}
    assert known["second_hop: o3"] | {"norm": 0} == {
        "name": "second_hop: o3", "group": "second_hop", "layer": 2, "about": "written by layers.2.mlp", "norm": 0,
    }  # fmt: skip
    for answer in ("o3", "o11"):
        name = f"second_hop: {answer}"
        body = {"model": TEXT, "prompt": examples["clean"], "known": name, "layer": known[name]["layer"], "words": 1}
        events = told(client, "/api/steer", **body, others=examples["off"])
        assert steered(events) == [answer]
        start = dict(events)["start"]
        assert start["norm"] == pytest.approx(known[name]["norm"]) and start["state"] > start["norm"]
        printed, made = run(start["code"])
        assert printed == answer and float(made["direction"].norm()) == pytest.approx(start["norm"])
    wrong = told(client, "/api/steer", **(body | {"known": "second_hop: o33"}))
    assert wrong[-1][0] == "error" and "did you mean" in wrong[-1][1]["error"]


def test_steering_by_the_directions_of_a_trained_organism(client):
    examples = ask(client, "/api/models/examples", model="organism:guard")
    known = {one["name"]: one for one in ask(client, "/api/steer/known", model="organism:guard")}
    assert known["refusal"]["layer"] == 5 and known["harm"]["layer"] == 1
    body = {"model": "organism:guard", "prompt": examples["clean"], "words": 1, "layer": 5}
    assert steered(told(client, "/api/steer", **body, known="refusal")) == ["sorry"]
    assert steered(told(client, "/api/steer", **body, known="refusal", strength=0)) == ["sure"]
    assert ask(client, "/api/steer/known", model="organism:facts") == []


def test_steering_by_a_file_of_ones_own(client, tmp_path, monkeypatch):
    from safetensors.torch import save, save_file

    vector = torch.randn(192, generator=torch.Generator().manual_seed(0))
    tensors = {
        "mine": vector,
        "layers.1.resid_post": vector * 2,
        "each": torch.stack([vector, -vector, vector]),
        "ids": torch.arange(4),
    }
    sent = client.post(
        "/api/steer/file?called=mine.safetensors", content=save(tensors), headers={"content-type": "application/octet-stream"}
    )
    file = sent.json()["file"]
    known = {one["name"]: one for one in ask(client, "/api/steer/known", model=TEXT, file=file)}
    layers = {name: one["layer"] for name, one in known.items()}
    assert layers == {
        "mine": None,
        "layers.1.resid_post": 1,
        "each[0]": 0,
        "each[1]": 1,
        "each[2]": 2,
    }  # three layers, a row for each
    examples = ask(client, "/api/models/examples", model=TEXT)
    body = {"model": TEXT, "prompt": examples["clean"], "file": file, "known": "mine", "layer": 1, "words": 1, "strength": 3.0}
    events = told(client, "/api/steer", **body)
    monkeypatch.chdir(tmp_path)
    save_file(tensors, "mine.safetensors")
    printed, made = run(dict(events)["start"]["code"])
    assert printed.split() == steered(events) and torch.equal(made["direction"], vector)
    narrow = told(client, "/api/steer", **(body | {"model": "organism:guard"}))
    assert narrow[-1][0] == "error" and "192 entries; the states of this model have 64" in narrow[-1][1]["error"]
    gone = client.post("/api/steer/known", json={"model": TEXT, "file": "sent:0123"})
    assert gone.status_code == 404
    for body, why in (
        (b"no file", "no safetensors"),
        (save({"ids": torch.arange(4)}), "no direction"),
        (save({"x": torch.ones(2, 2, 2)}), "2, 2, 2"),
    ):
        refused = client.post("/api/steer/file", content=body, headers={"content-type": "application/octet-stream"})
        assert refused.status_code == 400 and why in refused.json()["error"]
    broken = client.post(
        "/api/steer/file", content=save({"x": vector * float("nan")}), headers={"content-type": "application/octet-stream"}
    )
    events = told(client, "/api/steer", model=TEXT, prompt=examples["clean"], file=broken.json()["file"], known="x", layer=1)
    assert events[-1][0] == "error" and "NaN" in events[-1][1]["error"]


@pytest.mark.parametrize("name", ["facts", "fact-world", "guard"])
def test_prompts_to_begin_with_are_the_models_own(client, name):
    """No word that it does not know, and a pair that can be patched."""
    from mainspring.models.load import load

    examples = ask(client, "/api/models/examples", model=f"organism:{name}")
    tokenizer = load(f"organism:{name}").tokenizer
    for text in (examples["clean"], examples["other"], *examples["off"]):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    events = told(client, "/api/patch", model=f"organism:{name}", clean=examples["clean"], other=examples["other"])
    assert events[-1][0] == "end"


def test_a_small_vocabulary_begins_with_words_of_its_own():
    from mainspring.models.load import load
    from mainspring.workbench.examples import _of_vocabulary

    tokenizer = load("organism:ioi").tokenizer
    examples = _of_vocabulary(tokenizer)
    assert tokenizer.unk_token_id not in tokenizer(f"{examples.clean} {examples.other}")["input_ids"]
    assert examples.clean != examples.other
