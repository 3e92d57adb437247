"""The Gaze page on every class of vision-language models, by tiny random checkpoints in folders: heads, pointing, streaming, code."""

import base64
import json
import shutil
import threading
from importlib.util import find_spec

import pytest

from mainspring.views.documents import from_json
from workbench.asking import ask, run, text_of, told, words
from workbench.vision_language import NAMES, TILED, WITH_VIDEOS, saved, videos_left_out

# a warning of numpy about how transformers turns PaliGemma's tokens into an array
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CELLS = {"llava": 9, "gemma3": 4, "paligemma": 4, "idefics3": 40, "smolvlm": 40, "qwen2-vl": 36, "qwen2.5-vl": 36, "qwen3-vl": 36}
"""Image tokens that show a place of a strip: a grid, or nine tiles of four and a thumbnail."""
PANELS = {"gemma3": (2, 2), "paligemma": (2, 2)}
"""Grids of panels that as few tokens can tell apart."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: saved(name, tmp_path_factory.mktemp("models") / name) for name in NAMES}


@pytest.fixture(scope="module", autouse=True)
def videos():
    with videos_left_out():
        yield


def asked(client, folder, name):
    """A strip, or for few tokens an image of one's own that is cut in four."""
    if name not in PANELS:
        return {"model": str(folder), "image": "strip:41"}
    strip = next(one for one in client.get("/api/gaze/images").json() if one["name"] == "strip:41")
    body = base64.b64decode(strip["image"].partition(",")[2])
    rows, columns = PANELS[name]
    path = f"/api/gaze/image?rows={rows}&columns={columns}"
    sent = client.post(path, content=body, headers={"content-type": "image/png"}).json()
    return {"model": str(folder), "image": sent["name"], "rows": rows, "columns": columns}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_works(client, folders, name):
    where = asked(client, folders[name], name)
    assert ask(client, "/api/models/examples", model=where["model"])["summary"]["images"]
    found = ask(client, "/api/gaze/heads", **where)
    view = from_json(json.dumps(found["view"]))
    assert len(found["ranked"]) == len(view.x) * len(view.y) == 12
    assert "{}" in found["question"] and found["prompts"]["answer"].startswith(found["question"].partition("Describe")[0])
    body = {**where, "prompt": found["prompts"]["answer"], "top": 4}
    session, seen, box = "00112233445566aa", [], [0.0, 0.0, 0.33, 0.5]

    def write():
        seen.extend(told(client, "/api/gaze/tell", **body, target=[0.67, 0.5, 1, 1], words=12, pace=8, session=session))

    thread = threading.Thread(target=write)
    bench = client.app.app.state.bench
    thread.start()
    while session not in bench.aims:
        assert thread.is_alive()
    ask(client, "/api/gaze/look", session=session, target=box, turn=1)
    thread.join()
    assert [event for event, _ in seen] == ["code", "start", *["word"] * 12, "end"], seen[-1]
    cells = dict(seen)["start"]["cells"]
    assert len(cells) == CELLS[name]
    assert {len(base64.b64decode(word["mass"])) for word in words(seen)} == {len(cells)}
    turned = [word for word in words(seen) if word["turn"] == 1]
    assert turned and all(word["regions"][0] > 0.5 for word in turned)
    # what was written under the first target, if anything was, looked there
    assert all(word["regions"][-1] > 0.5 for word in words(seen) if word["turn"] == 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_says_the_same(client, folders, name, tmp_path, monkeypatch):
    where = asked(client, folders[name], name)
    found = ask(client, "/api/gaze/heads", **where)
    events = told(client, "/api/gaze/tell", **where, prompt=found["prompts"]["narrate"], target=[0.67, 0.5, 1, 1], top=4, words=6)
    code, names = dict(events)["code"]["code"], {}
    if name in PANELS:  # the code opens "your image", which the reader names
        strip = next(one for one in client.get("/api/gaze/images").json() if one["name"] == "strip:41")
        (tmp_path / "your image").write_bytes(base64.b64decode(strip["image"].partition(",")[2]))
        monkeypatch.chdir(tmp_path)
    printed, names = run(code)
    assert printed.split() == text_of(events)
    assert len(names["tokens"]) >= CELLS[name]
    _, names = run(found["code"])
    assert [list(place) for place in names["heads"].top(3)] == found["ranked"][:3]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "paligemma"])  # which puts the image in front by itself
def test_a_prompt_without_the_image_is_refused_in_clear_words(client, folders, name):
    where = asked(client, folders[name], name)
    for prompt in ("Describe this panel :", "<image> <image> Describe" if name in TILED else "Describe"):
        events = told(client, "/api/gaze/tell", **where, prompt=prompt)
        assert events[-1][0] == "error" and "has to hold the image once, as <" in events[-1][1]["error"]
    refused = client.post("/api/gaze/heads", json={**where, "question": "Describe panel {} :"})
    assert refused.status_code == 400 and "has to hold the image" in refused.json()["error"]


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="needs a Python without torchvision")
@pytest.mark.parametrize("name", WITH_VIDEOS)
def test_what_lacks_a_package_says_which(client, folders, name, tmp_path):
    """As a real checkpoint is opened here, with all parts of its processor."""
    real = tmp_path / f"real-{name}"  # `videos_left_out` goes by the folder's name
    shutil.copytree(folders[name], real)
    refused = client.post("/api/gaze/heads", json={"model": str(real)})
    assert refused.status_code == 400
    assert "takes images, but its processor cannot be opened: it needs torchvision" in refused.json()["error"]


def test_a_folder_without_a_processor_says_so(client, folders, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folders["llava"].iterdir():
        if file.name != "processor_config.json":
            (bare / file.name).write_bytes(file.read_bytes())
    refused = client.post("/api/gaze/heads", json={"model": str(bare)})
    assert refused.status_code == 400 and "takes images, but its processor cannot be opened" in refused.json()["error"]
