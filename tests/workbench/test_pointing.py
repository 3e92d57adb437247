"""How much is done between a hover and the first word that it changes: counted, not timed."""

import gc
import itertools
import threading
import weakref

import pytest
import torch
from starlette.testclient import TestClient

from mainspring.models.load import load
from mainspring.models.model import Model
from mainspring.workbench import shelf as shelves
from mainspring.workbench.app import create_app
from mainspring.workbench.bench import Bench
from mainspring.workbench.gazing import Aim, Gazing, Pace
from mainspring.workbench.images import Images
from mainspring.workbench.routes import gaze as routes
from mainspring.workbench.shelf import Held, Shelf
from mainspring.workbench.turns import Turns
from workbench.asking import ask, told

COMICS = "organism:comics"
HEADS = [(2, 7), (2, 6), (3, 5), (2, 4), (3, 1), (3, 4), (2, 0), (3, 2)]
STRUCTURE = {"one", "two", "three", "four", "five", "six", ":", "."}


@pytest.fixture(scope="module")
def held():
    return Held(COMICS, load(COMICS))


class Counting(threading.Event):
    """An event that counts how often somebody waited for it, and nobody has to."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def wait(self, timeout=None):
        self.waits += not self.is_set()
        return self.is_set()


def narrated(held, looks, words=24):
    """(text, turn, forward passes so far, pauses so far) of each word; `looks` says behind which word which region is pointed at."""
    shown = Images().get("strip:40")
    aim, seen, passes = Aim(), [], []
    aim.moved = Counting()
    text = Gazing(held, shown, "<img> plain this all", HEADS, HEADS, aim, words, pace=7.0)
    hook = held.model.module.register_forward_pre_hook(lambda *_: passes.append(1))

    def send(event, data):
        if event == "word":
            seen.append((data["text"].strip(), data["turn"], len(passes), aim.moved.waits))
            if data["index"] in looks:
                aim.look(shown.regions[looks[data["index"]]])

    try:
        text.run(send)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("behind", range(6, 12))
def test_words_come_at_once_until_the_first_that_the_aim_changes(held, behind):
    """Wherever in a clause it is pointed: one prefill in all, one pass for each word, no pause before the first word of content."""
    seen = narrated(held, {behind: 4})
    assert [passes for _, _, passes, _ in seen] == list(range(1, len(seen) + 1))
    assert [turn for _, turn, _, _ in seen] == [0] * (behind + 1) + [1] * (len(seen) - behind - 1)
    later = list(itertools.dropwhile(lambda word: word[0] in STRUCTURE, seen[behind + 1 :]))
    assert seen.index(later[0]) - behind <= Pace.AT_ONCE
    assert later[0][3] == seen[behind][3]  # no pause came between
    assert seen[-1][3] - seen[behind][3] >= 4  # and later words are held up again


def test_the_first_words_of_all_come_at_once(held):
    """As does a text that is pointed before it has begun."""
    seen = narrated(held, {})
    assert seen[2][0] not in STRUCTURE and seen[2][3] == 0 < seen[8][3]


def test_a_pace_makes_up_for_words_that_came_at_once(monkeypatch):
    clock, moved = [0.0], threading.Event()
    monkeypatch.setattr("mainspring.workbench.gazing.monotonic", lambda: clock[0])
    monkeypatch.setattr(moved, "wait", lambda pause: clock.__setitem__(0, clock[0] + pause))
    pace, times = Pace(10.0, moved), []
    for index in range(30):
        times.append(clock[0])
        if index == 14:
            moved.set()
        pace.wait()
    assert times[:4] == [0.0] * 4 and times[14:19] == [times[14]] * 5
    assert times[29] == pytest.approx(2.9)  # ten in a second all the same
    assert max(b - a for a, b in itertools.pairwise(times)) <= 0.4 + 1e-9


def test_a_hover_before_the_text_has_begun_begins_no_second_one(held, monkeypatch):
    """The aim is moved while the prompt is prepared: the same text follows it from its first word."""
    shown, begun = Images().get("strip:40"), []
    aim, real = Aim(shown.regions[0]), Model.generate
    monkeypatch.setattr(Model, "generate", lambda self, *given, **more: begun.append(1) or real(self, *given, **more))
    text, seen = Gazing(held, shown, "<img> plain this all", HEADS, HEADS, aim, 5), []

    def send(event, data):
        if event == "start":
            aim.look(shown.regions[4])
        if event == "word":
            seen.append(data)

    with held.lock:
        thread = threading.Thread(target=text.run, args=[send])
        thread.start()
        aim.look(shown.regions[3])  # it waits for its turn meanwhile
    thread.join()
    assert begun == [1]
    assert [word["turn"] for word in seen] == [1, 2, 2, 2, 2]
    assert max(range(6), key=seen[-1]["regions"].__getitem__) == 4


def test_the_first_hover_does_nothing_for_the_first_time(monkeypatch):
    """When the server starts the heads are found and pointed once, with a move between two words."""
    found, steps, bench = [], [], Bench((COMICS,))
    real_heads, real = routes.gaze_heads, Gazing._moved
    monkeypatch.setattr(routes, "gaze_heads", lambda *given: found.append(1) or real_heads(*given))
    monkeypatch.setattr(Gazing, "_moved", lambda self, *given: steps.append(real(self, *given)) or steps[-1])
    routes.warm(bench)
    assert found == [1] and sum(edits is not None for edits in steps) == 2
    with bench.shelf.use(COMICS) as held:
        routes._comic_scores(held)
    assert found == [1]
    routes.warm(Bench(("organism:nothing",)))  # it is told when it is asked for
    routes.warm(Bench(("organism:two-hop",)))
    assert found == [1]


@pytest.fixture
def bench(held):
    """A server that holds the model."""
    bench = Bench((COMICS,))
    bench.shelf._held[COMICS] = held
    return bench


def whole(held):
    """What would change if anything were left in a model: its hooks, its attention, its answer to an image."""
    model, shown = held.model, Images().get("strip:41")
    logits = model.run(
        "<img> plain this :", images=shown.image
    ).logits  # transformers sets hooks of its own in the first run of all
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()]
    switches = [m.config._attn_implementation for m in model.module.modules() if hasattr(m, "config")]
    return hooks, switches, logits


def is_left_as_it_was(held, before):
    hooks, switches, logits = whole(held)
    return (hooks, switches) == before[:2] and torch.equal(logits, before[2])


@pytest.mark.parametrize("behind", ["start", "word"])
def test_preparing_gives_way(held, bench, monkeypatch, behind):
    """Who wants the model while it is prepared gets it, and the rest of the preparation is left out."""
    before, real = whole(held), Gazing.run
    told, release, asking = [], threading.Event(), []

    def hold():
        with held.lock:
            release.wait(30)

    def run(self, send):
        def heard(event, data):
            told.append(event)
            if event == behind and not asking:
                asking.append(threading.Thread(target=hold))
                asking[-1].start()
                while not held.lock.wanted:
                    pass
            send(event, data)

        real(self, heard)

    monkeypatch.setattr(Gazing, "run", run)
    preparing = threading.Thread(target=routes.warm, args=[bench])
    preparing.start()
    preparing.join(20)
    waits = preparing.is_alive()  # for the model, that is
    release.set()
    preparing.join()
    asking[0].join()
    assert not waits and told == ["start", "word"][: 1 + (behind == "word")]
    assert is_left_as_it_was(held, before)


def test_preparing_leaves_the_model_as_it_was(held, bench):
    before = whole(held)
    routes.warm(bench)
    assert is_left_as_it_was(held, before)


@pytest.mark.parametrize("part", ["gaze_heads", "Gazing"])
def test_what_fails_while_preparing_is_not_told_by_the_page(part, held, monkeypatch, caplog):
    """It is logged, and a request finds the model in order."""
    monkeypatch.setattr(Shelf, "get", lambda *_: held)
    if part == "gaze_heads":
        monkeypatch.delitem(held.known, "gaze", raising=False)
    before, failed, real = whole(held), threading.Event(), getattr(routes, part)

    def fails(*given):
        if failed.is_set():
            return real(*given)
        failed.set()
        raise RuntimeError("no such luck")

    monkeypatch.setattr(routes, part, fails)
    with TestClient(create_app([COMICS]), base_url="http://127.0.0.1") as client:
        assert failed.wait(20)
        assert ask(client, "/api/gaze/heads", model=COMICS)["best"] > 0.3
        events = told(client, "/api/gaze/tell", model=COMICS, prompt="<img> plain this :", target=[0, 0, 0.3, 0.5])
    assert [event for event, _ in events] == ["code", "start", "word", "word", "word", "end"]
    assert "could not prepare" in caplog.text and "no such luck" in caplog.text
    assert is_left_as_it_was(held, before)


class Ring:
    """What only a collection frees."""

    def __init__(self):
        self.itself = self


def test_collections_leave_out_what_stays(monkeypatch):
    """Or one of a quarter of a second meets a hover; a model that has made room is freed all the same."""
    monkeypatch.setattr(shelves, "load", lambda _: Ring())
    monkeypatch.setattr(routes, "warm", lambda _: None)
    gc.unfreeze()
    shelf, before = Shelf(1), len(gc.get_objects())
    model = weakref.ref(shelf.get("one").model)
    assert gc.get_freeze_count() >= before > 50 * len(gc.get_objects())
    shelf.get("another")
    assert model() is None
    with TestClient(create_app()):
        assert gc.get_freeze_count()
    assert not gc.get_freeze_count()  # when the server stops, all is as it was


def test_turns_are_taken_in_order():
    """Who lets go and asks again comes behind those who wait; an ordinary lock lets it come again and again."""
    lock, order = Turns(), []
    with lock, lock:  # reentrant
        threads = []
        for name in "abc":
            threads.append(threading.Thread(target=take, args=[lock, order, name, 3]))
            threads[-1].start()
            while len(lock._queue) < len(threads):
                pass
    for thread in threads:
        thread.join()
    assert order == list("abcabcabc")
    with lock:
        order.append("free again")


def take(lock, order, name, times):
    for _ in range(times):
        with lock:
            order.append(name)
            while len(lock._queue) < 2 and not any(order.count(one) == times for one in "abc"):
                pass  # until the others wait


def test_an_error_hands_the_turn_on():
    lock = Turns()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    thread = threading.Thread(target=lock.__enter__)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
