"""What the pages ask for, end to end through the application: answers, streams, and the code that goes with them."""

import base64
import io
import json
import threading

import pytest
import torch
from PIL import Image

from mainspring.edits import Edits
from mainspring.find.gaze_regions import positions_of
from mainspring.sites import at
from mainspring.steer.gaze_edit import gaze
from mainspring.tasks.comic_strips import sample
from mainspring.views.documents import from_json
from mainspring.workbench.gazing import Aim, Gazing, Taps
from mainspring.workbench.images import Images
from mainspring.workbench.shelf import Held
from workbench.asking import COMICS, TEXT, ask, run, text_of, told, words


@pytest.fixture(scope="module")
def found(client):
    return ask(client, "/api/gaze/heads", model=COMICS)


@pytest.fixture(scope="module")
def held(client, found):
    """A model of its own, so that the server's keeps its lock."""
    from mainspring.models.load import load

    return Held(COMICS, load(COMICS))


# ---- gaze ----


def test_heads_come_with_their_map(found):
    view = from_json(json.dumps(found["view"]))
    assert len(found["ranked"]) == len(view.y) * len(view.x)
    assert view.values[found["ranked"][0][0]][found["ranked"][0][1]] == pytest.approx(found["best"])
    assert found["best"] > found["shuffled"] + 0.1


def test_pointing_at_a_panel_tells_that_panel(client, found):
    (strip,) = sample(1, seed=40)
    said = []
    for figure in strip.figures:
        body = {"prompt": found["prompts"]["answer"], "target": figure.box, "top": found["top"]["answer"]}
        events = told(client, "/api/gaze/tell", model=COMICS, image="strip:40", **body)
        assert [name for name, _ in events] == ["code", "start", "word", "word", "word", "end"]
        said.append(text_of(events))
        looked = [max(range(6), key=word["regions"].__getitem__) for word in words(events)]
        assert looked == [strip.figures.index(figure)] * 3
    right = sum(tuple(text) == figure.words for text, figure in zip(said, strip.figures, strict=True))
    assert right >= 5, said
    plain = told(client, "/api/gaze/tell", model=COMICS, image="strip:40", prompt=found["prompts"]["answer"], which="none")
    assert sum(text_of(plain) == list(figure.words) for figure in strip.figures) <= 1


def test_the_looks_are_those_of_the_moved_heads(held, found):
    """The taps give what a plain read gives, and change nothing."""
    (strip,) = sample(1, seed=40)
    prompt, heads = found["prompts"]["answer"], [tuple(head) for head in found["ranked"][:12]]
    (tokens,) = held.model.image_regions(prompt, images=strip.image)
    edits, taps = gaze(heads, strip.panel(3), tokens), Taps(heads)
    tapped = held.model.generate(prompt, images=strip.image, edits=Edits([*edits, *taps.edits]), max_new_tokens=1)
    plain = held.model.generate(prompt, images=strip.image, edits=edits, max_new_tokens=1)
    assert tapped.text == plain.text
    site = at.layers[:].attn.pattern(query=-1)
    trace = held.model.run(prompt, images=strip.image, edits=edits, read=site)
    rows = torch.stack([trace[at.layers[layer].attn.pattern(query=-1)][0, head] for layer, head in heads])
    assert taps.mean().allclose(rows.mean(0), atol=1e-6)
    assert float(taps.mean()[list(positions_of(strip.panel(3), tokens))].sum()) > 0.9


@pytest.mark.parametrize("which", ["random", "bottom", "all"])
def test_controls_are_of_the_size_they_say(client, found, which):
    events = told(
        client, "/api/gaze/tell", model=COMICS, prompt=found["prompts"]["answer"], which=which, top=5, target=[0, 0, 0.3, 0.5]
    )
    moved = dict(events)["code"]["heads"]
    assert len(moved) == (len(found["ranked"]) if which == "all" else 5)
    if which == "bottom":
        assert moved == found["ranked"][-5:]


def test_the_target_moves_between_two_words(held, found):
    shown = Images().get("strip:40")
    heads = [tuple(head) for head in found["ranked"][: found["top"]["narrate"]]]
    aim, seen = Aim(shown.regions[3]), []
    text = Gazing(held, shown, found["prompts"]["narrate"], heads, heads, aim, 18)

    def send(event, data):
        if event == "word":
            seen.append(data)
            if data["index"] == 5:
                aim.look(shown.regions[4])

    text.run(send)
    assert [word["turn"] for word in seen] == [0] * 6 + [1] * 12
    looked = [max(range(6), key=word["regions"].__getitem__) + 1 for word in seen]
    assert looked[:6] == [4] * 6 and looked[6:] == [5] * 12
    (strip,) = sample(1, seed=40)
    said = [word["text"].strip() for word in seen]
    assert tuple(said[2:5]) == strip.figures[3].words
    assert sum(word in said[6:] for word in strip.figures[4].words) >= 2, said


def test_looking_from_another_request(client, found):
    """The look arrives while the text is written, and later words have it."""
    box, seen, session = [0.34, 0.5, 0.66, 1.0], [], "0123456789abcdef"
    body = {"model": COMICS, "prompt": found["prompts"]["narrate"], "top": 8, "session": session}

    def write():
        seen.extend(words(told(client, "/api/gaze/tell", **body, words=30, pace=15)))

    thread = threading.Thread(target=write)
    bench = client.app.app.state.bench
    thread.start()
    while session not in bench.aims:
        assert thread.is_alive()
    twice = told(client, "/api/gaze/tell", **body)
    assert twice[-1][0] == "error" and "being written" in twice[-1][1]["error"]
    answer = client.post("/api/gaze/look", json={"session": session, "target": box, "turn": 2})
    overtaken = client.post("/api/gaze/look", json={"session": session, "target": [0, 0, 0.3, 0.5], "turn": 1})
    thread.join()
    assert answer.json() == overtaken.json() == {"looking": True}
    assert max(range(6), key=seen[-1]["regions"].__getitem__) == 4 and seen[-1]["turn"] == 2
    assert client.post("/api/gaze/look", json={"session": session, "target": box}).status_code == 404
    assert not bench.aims
    empty = client.post("/api/gaze/look", json={"session": session, "target": [0.5, 0, 0.5, 1]})
    assert empty.status_code == 422 and "box is empty" in empty.json()["error"]


def png(size=(60, 40)):
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    return out.getvalue()


def test_an_image_of_ones_own(client, found):
    sent = client.post("/api/gaze/image?rows=1&columns=2", content=png(), headers={"content-type": "image/png"}).json()
    assert (sent["width"], sent["height"]) == (60, 40) and sent["regions"] == [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]
    body = {"image": sent["name"], "rows": 1, "columns": 2, "prompt": found["prompts"]["answer"], "target": [0.7, 0.5]}
    events = told(client, "/api/gaze/tell", model=COMICS, **body)
    assert len(text_of(events)) == 3 and len(words(events)[0]["regions"]) == 2
    assert len(base64.b64decode(words(events)[0]["mass"])) == 36


@pytest.mark.parametrize("body", [b"", b"no image", png()[:60], b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_is_refused(client, body):
    answer = client.post("/api/gaze/image", content=body, headers={"content-type": "image/png"})
    assert answer.status_code == 400 and "no PNG" in answer.json()["error"]


def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(client):
    body = png((5000, 10))
    assert "5000 x 10" in client.post("/api/gaze/image", content=body, headers={"content-type": "image/png"}).json()["error"]


def test_what_cannot_gaze_says_so(client):
    answer = client.post("/api/gaze/heads", json={"model": TEXT})
    assert answer.status_code == 400 and "takes no images" in answer.json()["error"]
    events = told(client, "/api/gaze/tell", model=COMICS, image="sent:0123", prompt="<img> plain this :")
    assert events[-1][0] == "error" and "no image" in events[-1][1]["error"]


# ---- the other pages ----


def test_look(client):
    examples = ask(client, "/api/models/examples", model=TEXT)
    seen = ask(client, "/api/look", model=TEXT, prompt=examples["clean"])
    for view in seen["views"].values():
        assert from_json(json.dumps(view)).title
    pattern = ask(client, "/api/look/attention", model=TEXT, prompt=examples["clean"], layer=1)
    size, data = len(pattern["tokens"]), base64.b64decode(pattern["data"])
    assert len(data) == pattern["heads"] * size * size
    _, names = run(pattern["code"])
    assert [v / 255 for v in data[: size * size]] == pytest.approx([v for row in names["view"].values for v in row], abs=1 / 255)
    for name, code in seen["code"].items():
        assert json.loads(run(code)[1]["view"].to_json()) == seen["views"][name]


def test_patch(client):
    examples = ask(client, "/api/models/examples", model=TEXT)
    body = {"model": TEXT, "clean": examples["clean"], "other": examples["other"]}
    events = told(client, "/api/patch", **body)
    names = [name for name, _ in events]
    assert names[0] == "pair" and names[-1] == "end" and names.count("map") == 2 and "progress" in names
    for name, data in events:
        if name == "map":
            _, made = run(data["code"])
            assert json.loads(made["found"].view().to_json())["values"] == data["view"]["values"]
    cell = ask(client, "/api/patch/cell", **body, what="head", layer=0, index=0)
    assert json.loads(run(cell["code"])[1]["found"].to_json()) == cell["view"]
    events = told(client, "/api/patch", **(body | {"other": examples["clean"]}))
    assert events[-1][0] == "error" and "the same" in events[-1][1]["error"]


def test_patch_without_heads(client):
    """A state-space model has one map, and the reason why there is no other."""
    examples = ask(client, "/api/models/examples", model="organism:facts-mamba")
    events = told(client, "/api/patch", model="organism:facts-mamba", clean=examples["clean"], other=examples["other"])
    assert [name for name, _ in events if name != "progress"] == ["pair", "map", "without", "end"]
    assert "no output of single heads" in dict(events)["without"]["why"]


def test_a_word_that_the_model_does_not_know(client, caplog):
    """It is refused with those that it does know, and the log stays free of it."""
    texts = {"prompt": "a of Paris has r1"}
    refused = client.post("/api/look", json={"model": TEXT, **texts})
    assert refused.status_code == 400 and "knows: the a of has plays s0" in refused.json()["error"]
    ways = {"plus": ["a of s4 plays r1"], "minus": ["a of s8 has r1"]}
    for body in ({**texts, **ways}, {"prompt": "a of s8 has r1", **ways, "others": ["Paris"]}):
        events = told(client, "/api/steer", model=TEXT, layer=1, strength=1.0, **body)
        assert events[-1][0] == "error" and "organism:two-hop knows" in events[-1][1]["error"]
    events = told(client, "/api/gaze/tell", model=COMICS, prompt="<img> plain Paris :")
    assert events[-1][0] == "error" and "organism:comics knows: plain flip" in events[-1][1]["error"]
    assert not caplog.records


def test_gaze_code(client, found):
    events = told(client, "/api/gaze/tell", model=COMICS, prompt=found["prompts"]["answer"], target=[0, 0.5, 0.33, 1])
    printed, _ = run(dict(events)["code"]["code"])
    assert printed.split() == text_of(events)
    _, names = run(found["code"])
    assert [list(place) for place in names["heads"].top(3)] == found["ranked"][:3]


def test_organisms_and_models(client):
    every = {one["name"]: one for one in client.get("/api/organisms").json()}
    assert every["comics"]["ready"]
    one = client.get("/api/organisms/two-hop").json()
    assert "## Inside" in one["card"] and one["views"][0]["kind"] == "graph"
    assert client.get("/api/organisms/nothing").status_code == 404
    inside = ask(client, "/api/models/inside", model=TEXT)
    assert {"layers.0:3.attn.z", "logits"} <= {row["site"] for row in inside["sites"]}
    assert any(module["class"] == "GPT2Attention" for module in inside["modules"])
    assert TEXT in client.get("/api/models").json()["open"]


def test_a_study_runs_and_leaves_its_report(client):
    before = {one["name"]: one for one in client.get("/api/studies").json()}
    assert before["attention-sinks"]["last"] is None
    assert client.get("/api/studies/attention-sinks/report").status_code == 404
    events = told(client, "/api/studies/attention-sinks", quick=True)
    claims = [part["claim"] for name, part in events if name == "part" and "claim" in part]
    assert claims and events[-1] == ("end", events[-1][1]) and events[-1][1]["claims"] == len(claims)
    last = {one["name"]: one for one in client.get("/api/studies").json()}["attention-sinks"]["last"]
    assert (last["held"], last["claims"]) == (sum(claim["holds"] for claim in claims), len(claims))
    report = client.get("/api/studies/attention-sinks/report")
    assert "sandbox" in report.headers["content-security-policy"] and b"<main>" in report.content
    assert client.post("/api/studies/nothing", json={}).status_code == 400


def test_heads_of_any_other_model_are_found_on_the_image_itself(client, monkeypatch):
    """A model that knows no comics: its heads are those that look at the panel that the question numbers."""
    from mainspring.workbench import prompting
    from mainspring.workbench.routes import gaze as routes

    for module in (routes, prompting):
        monkeypatch.setattr(module, "is_comic", lambda held: False)
    names = dict(zip("123456", ("one", "two", "three", "four", "five", "six"), strict=True))
    asked = []
    real = routes.gaze_heads

    def spelled(model, items, **how):  # this model counts in words
        asked.extend(item.prompt for item in items)
        items = [type(i)(i.prompt.replace(k := str(i.asked + 1), names[k]), i.image, i.regions, i.asked) for i in items]
        return real(model, items, **how)

    monkeypatch.setattr(routes, "gaze_heads", spelled)
    monkeypatch.setattr(routes, "image_tokens", lambda *_: None)  # which has no word for 1
    refused = client.post("/api/gaze/heads", json={"model": COMICS, "question": "<img> plain panel one :"})
    assert refused.status_code == 400 and "{}" in refused.json()["error"]
    found = ask(client, "/api/gaze/heads", model=COMICS, image="strip:41", question="<img> plain panel {} :")
    assert asked == [f"<img> plain panel {i} :" for i in range(1, 7)]
    assert found["best"] > 0.3 and len(found["ranked"]) == 32
    assert found["prompts"]["answer"] == "<img> Describe this panel:" and "RegionItem" in found["code"]
