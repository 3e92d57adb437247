"""Asking the application as a page does."""

import contextlib
import io
import json

COMICS, TEXT = "organism:comics", "organism:two-hop"


def ask(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < 200_000
    return answer.json()


def told(client, path, **body):
    """The events of a stream, as (name, data)."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def run(code):
    """What a piece of copied code prints, and its names."""
    names, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, names)
    return out.getvalue().strip(), names


def words(events):
    return [data for name, data in events if name == "word"]


def text_of(events):
    return "".join(word["text"] for word in words(events)).split()
