"""What *Copy the code* gives on each page runs as it stands, and makes what the page shows; more of it is tested beside its page."""

import json

import pytest
import torch

from mainspring.models.load import load
from workbench.asking import COMICS, TEXT, ask, run, told


@pytest.mark.parametrize("model", [TEXT, COMICS, "organism:guard"])
def test_models_every_site_that_is_offered_is_read(client, model):
    inside = ask(client, "/api/models/inside", model=model)
    assert run(inside["code"])[1]["model"].n_layers == inside["summary"]["layers"]
    sites = [row["site"] for row in inside["sites"] if "read" in row["verbs"]]
    sites += [
        f'module["{module["name"]}"].output'
        for module in inside["modules"]
        if module["class"] in ("Linear", "LayerNorm", "Conv1D")
    ][:4]
    assert len(sites) > 20
    # once as it stands, then without opening the model again
    value = run(inside["reading"].replace("SITE", json.dumps(sites[0])))[1]["value"]
    assert isinstance(value, torch.Tensor)
    opened = {"model": load(model)}
    rest = inside["reading"].partition(")\n")[2]
    for site in sites:
        names = dict(opened)
        exec(rest.replace("SITE", json.dumps(site)), names)
        assert torch.isfinite(names["value"].float()).any(), site


def test_models_without_a_tokenizer(client, tmp_path):
    import transformers as hf

    config = hf.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16, n_positions=16, bos_token_id=0, eos_token_id=0)
    hf.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    inside = ask(client, "/api/models/inside", model=str(tmp_path))
    assert run(inside["reading"].replace("SITE", '"layers.0.resid_post"'))[1]["value"].shape == (1, 4, 8)


@pytest.mark.parametrize("name", ["two-hop", "guard", "comics"])
def test_organisms(client, name):
    shown = client.get(f"/api/organisms/{name}").json()
    _, names = run(shown["code"])
    assert [json.loads(view.to_json()) for view in names["views"]] == shown["views"]


def test_steer_off_target(client):
    examples = ask(client, "/api/models/examples", model=TEXT)
    body = {"model": TEXT, "prompt": examples["clean"], "words": 1, "others": examples["off"], "strength": 2.0}
    for direction in (
        {"known": "second_hop: o3", "layer": 2},
        {"plus": [examples["other"]], "minus": [examples["clean"]], "layer": 1},
    ):
        off = dict(told(client, "/api/steer", **body, **direction))["off"]
        _, names = run(off["code"])
        assert names["view"].values == pytest.approx(off["view"]["values"], abs=1e-5)
        assert off["mean"] == pytest.approx(sum(off["view"]["values"]) / len(examples["off"]))


def test_studies(client):
    events = told(client, "/api/studies/attention-sinks", quick=True)
    claims = [part["claim"]["measured"] for name, part in events if name == "part" and "claim" in part]
    _, names = run(dict(events)["start"]["code"])
    assert [claim.measured for claim in names["report"].claims] == claims
