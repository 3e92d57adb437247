"""The page in a real browser: pointing, every page's figure, the keyboard, and what goes wrong."""

import json

import pytest
import torch

from mainspring.tasks.comic_strips import sample
from workbench.browser import CHROMIUM, Browser
from workbench.vision_language import saved, videos_left_out

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
    pytest.mark.timeout(300),
]

COMICS = "organism:comics"
(STRIP,) = sample(1, seed=40)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MAINSPRING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def address(cache):
    from mainspring.workbench.serve import serving

    with serving([COMICS]) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def quiet(browser):
    """No test may leave an error in the console."""
    browser.errors.clear()
    yield
    assert browser.errors == []


@pytest.fixture
def gaze(browser, address):
    browser.mouse("mouseMoved", 5, 5)
    browser.open(f"{address}/#/gaze")
    browser.wait("document.querySelectorAll('.words [data-aim]').length >= 3 && document.querySelector('.below svg')", 120)
    return browser


ANSWER = "[...document.querySelectorAll('.words')].find(w => w.ariaLabel === 'Pointed').querySelectorAll('[data-aim]')"


def answer(page, aim, count=3):
    """The words that were written under a target."""
    aim = json.dumps([float(n) for n in aim])
    same = f"JSON.stringify(JSON.parse(w.dataset.aim || 'null')?.map(n => +n.toFixed(3))) === JSON.stringify({aim}.map(n => +n.toFixed(3)))"
    page.wait(f"[...{ANSWER}].filter(w => {same}).length >= {count}", 30)
    return page.run(f"[...{ANSWER}].filter(w => {same}).map(w => w.textContent.trim())")


def test_hovering_a_panel_tells_that_panel(gaze):
    told = []
    for k, figure in enumerate(STRIP.figures, 1):
        gaze.hover(f".region:nth-of-type({k})")
        told.append(tuple(answer(gaze, figure.box)))
        assert gaze.run(f"[...{ANSWER}].map(w => w.dataset.region)") == [str(k)] * 3
    assert sum(text == figure.words for text, figure in zip(told, STRIP.figures, strict=True)) >= 5, told
    gaze.mouse("mouseMoved", 5, 5)  # away from the image the gaze is let go
    gaze.wait(f"[...{ANSWER}].length === 3 && [...{ANSWER}].every(w => w.dataset.aim === 'null')")
    assert float(gaze.run("document.querySelector('.delay').dataset.delay")) > 0


def test_pointing_by_keyboard(gaze):
    gaze.run("document.querySelector('.region').focus()")
    gaze.key("3")
    assert tuple(answer(gaze, STRIP.figures[2].box)) == STRIP.figures[2].words
    assert gaze.run("document.querySelectorAll('.region')[2].ariaPressed") == "true"
    gaze.key("Escape")
    gaze.wait(f"[...{ANSWER}].length === 3 && [...{ANSWER}].every(w => w.dataset.aim === 'null')")
    gaze.key("Tab")  # the next region points by being reached
    assert tuple(answer(gaze, STRIP.figures[1].box)) == STRIP.figures[1].words


def test_a_box_of_ones_own_and_a_click_that_stays(gaze):
    left, top, right, bottom = gaze.run(
        "(() => { const b = document.querySelectorAll('.region')[3].getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom] })()"
    )
    gaze.mouse("mouseMoved", left + 6, top + 6)
    gaze.mouse("mousePressed", left + 6, top + 6, button="left", clickCount=1)
    gaze.mouse("mouseMoved", (left + right) / 2, (top + bottom) / 2, button="left", buttons=1)
    gaze.mouse("mouseMoved", right - 4, bottom - 4, button="left", buttons=1)
    gaze.mouse("mouseReleased", right - 4, bottom - 4, button="left", clickCount=1)
    gaze.wait("document.querySelector('.drawn')")
    gaze.wait(f"[...{ANSWER}].map(w => w.textContent.trim()).join(' ') === {' '.join(STRIP.figures[3].words)!r}")
    gaze.hover(".region:nth-of-type(1)")  # what was drawn is kept while the pointer moves
    assert gaze.run("!!document.querySelector('.drawn')")
    gaze.click(".region:nth-of-type(1)")
    gaze.wait("document.querySelector('.region').ariaPressed === 'true'")
    assert tuple(answer(gaze, STRIP.figures[0].box)) == STRIP.figures[0].words


def test_the_target_moves_while_the_text_is_written(gaze):
    gaze.click(".switch button:nth-of-type(2)")
    gaze.hover(".region:nth-of-type(4)")
    gaze.wait(f"[...{ANSWER}].filter(w => w.dataset.region === '4').length >= 3", 30)
    gaze.hover(".region:nth-of-type(5)")
    gaze.wait(f"[...{ANSWER}].filter(w => w.dataset.region === '5').length >= 2", 30)
    regions = gaze.run(f"[...{ANSWER}].map(w => w.dataset.region)")
    assert "4" in regions and regions.index("5") > regions.index("4")  # one text holds both
    gaze.click(".switch button:nth-of-type(1)")
    gaze.wait(f"[...{ANSWER}].length === 3")


@pytest.mark.parametrize("at_once", [True, False])
def test_pointing_after_the_switch_begins_no_text_anew(gaze, at_once):
    """The text that the switch began follows, also one that the server has not yet answered for; the untouched one is the only other."""
    gaze.run(
        "(() => { const real = fetch; window.told = []; window.fetch = (to, how) => { told.push(String(to)); return real(to, how); }; })()"
    )
    x, y = gaze.place(".region:nth-of-type(5)")
    gaze.run("document.querySelector('.switch button:nth-of-type(2)').click()")
    gaze.wait("told.length >= 1")
    if not at_once:
        gaze.wait(f"{ANSWER}.length >= 6 && {ANSWER}.length < 20", 30)
    gaze.mouse("mouseMoved", x, y)
    gaze.wait(f"[...{ANSWER}].filter(w => w.dataset.region === '5').length >= 4", 30)
    assert sorted(gaze.run("told")) == ["/api/gaze/look", "/api/gaze/tell", "/api/gaze/tell"]
    aimed = gaze.run(f"[...{ANSWER}].map(w => w.dataset.aim)")
    assert aimed == sorted(aimed, key=lambda aim: aim != "null")  # words keep the target that they were chosen under
    gaze.run("document.querySelector('.switch button:nth-of-type(1)').click()")


@pytest.mark.parametrize("name", ["idefics3", "qwen2-vl"])
def test_other_models_are_pointed_too(gaze, tmp_path, name):
    """One that cuts images in tiles and one with a grid, opened by their folders; their weights are random, so that they say nothing."""
    with videos_left_out():
        gaze.fill(".model input", str(saved(name, tmp_path / name)))
        gaze.key("Enter")
        gaze.wait("document.querySelector('.question')?.value.includes('{}')", 60)
        gaze.wait(f"{ANSWER}.length === 16 && [...{ANSWER}].every(w => w.dataset.aim === 'null')", 60)
        cells = gaze.run("document.querySelectorAll('.picture rect').length")
        assert cells == {"idefics3": 40, "qwen2-vl": 36}[name]
        gaze.hover(".region:nth-of-type(3)")
        answer(gaze, STRIP.figures[2].box, 16)
        assert set(gaze.run(f"[...{ANSWER}].map(w => w.dataset.region)")) == {"3"}
        gaze.fill(".question", "no panel is named")
        gaze.key("Enter")
        gaze.wait("document.querySelector('[role=alert]')")
        assert "{}" in gaze.text("[role=alert]")
        gaze.fill(".model input", COMICS)
        gaze.key("Enter")
        gaze.wait(f"!document.querySelector('[role=alert]') && {ANSWER}.length === 3", 60)


def test_steering_by_a_known_direction_and_by_a_file(browser, address, tmp_path):
    from safetensors.torch import save_file

    browser.open(f"{address}/#/steer")
    browser.wait("document.querySelector('[data-kl]')", 120)
    browser.click(".switch button:nth-of-type(2)")
    browser.wait("document.querySelector('select.known')?.value && document.querySelector('[data-kl]')", 30)
    said = "[...document.querySelectorAll('.words')].find(w => w.ariaLabel === 'Steered').querySelector('p').textContent.trim()"
    choose = "(() => { const e = document.querySelector('select.known'); e.value = 'second_hop: o3';"
    browser.run(choose + " e.dispatchEvent(new Event('change', {bubbles: true})); })()")
    browser.wait(f"{said} === 'o3'", 30)
    assert "written by layers.2.mlp" in browser.text("main") and "Behind layer 2" in browser.text("main")
    file = tmp_path / "mine.safetensors"
    save_file({"mine": torch.ones(192)}, file)
    browser.choose_file(".upload input", file)
    browser.wait("document.querySelector('select.known')?.value === 'mine'", 30)
    browser.wait(f"Math.abs(document.querySelector('[data-norm]')?.dataset.norm - {192**0.5}) < 1e-4", 30)
    file.write_bytes(b"no tensors")
    browser.choose_file(".upload input", file)
    browser.wait("document.querySelector('[role=alert]')", 30)
    assert "no safetensors file" in browser.text("[role=alert]")


FIGURES = {
    "look": "document.querySelectorAll('main svg').length >= 4",
    "patch": "document.querySelectorAll('main .clickable svg').length === 2",
    "steer": "document.querySelector('[data-kl]')",
    "organisms": "document.querySelector('article svg')",
    "studies": "document.querySelectorAll('.gallery li').length >= 5",
    "models": "document.querySelector('.tree li')",
}


@pytest.mark.parametrize("page", FIGURES)
def test_every_page_shows_its_figure_and_works_by_keyboard(browser, address, page):
    browser.open(f"{address}/#/{page}")
    browser.wait(FIGURES[page], 120)
    assert browser.run("!document.querySelector('[role=alert]')")
    controls = "[...document.querySelectorAll('input, select, textarea, button, a')]"
    unnamed = f"{controls}.filter(e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    assert browser.run(unnamed) == []
    for _ in range(40):  # Tab reaches a stage or the first control of the page's own
        browser.key("Tab")
        if browser.run(
            "document.activeElement.matches('main .ms-stage, main .choices button, main .gallery button, main .leaf')"
        ):
            break
    else:
        raise AssertionError("Tab never came to what the page shows")
    if browser.run("document.activeElement.matches('.ms-stage')"):
        browser.key("Home")
        browser.wait("document.activeElement.querySelector('.ms-tip.on')?.textContent")
        if page == "patch":
            browser.key("Enter")
            browser.wait("document.querySelector('.cell table')", 30)
            assert "patched" in browser.text(".cell")
    else:
        browser.key("Enter")
        wanted = {"studies": "section progress", "models": "[aria-pressed=true]", "organisms": "article h2"}[page]
        browser.wait(f"document.querySelector('main {wanted}')", 60)
    if page == "studies":
        browser.click(".gallery .on button")  # which is Stop while it runs
        browser.wait("!document.querySelector('section progress')")


def test_the_code_of_a_head_names_that_head(browser, address):
    """Chosen on the map of what heads write; the code that is copied draws the same picture."""
    browser.open(f"{address}/#/look")
    browser.wait(FIGURES["look"], 60)
    browser.run("document.querySelector('.clickable').focus()")
    for key in ("Home", "ArrowRight", "ArrowDown", "Enter"):
        browser.key(key)
    shown = "[...document.querySelectorAll('figcaption')].map(f => f.textContent).find(t => t.startsWith('Attention of'))"
    browser.wait(f"{shown} === 'Attention of layer 1, head 1'", 30)
    browser.wait("[...document.querySelectorAll('pre')].pop().textContent.includes(', 1, 1)')", 30)
    code, names = browser.run("[...document.querySelectorAll('pre')].pop().textContent"), {}
    exec(code, names)
    assert names["view"].title == "Attention of layer 1, head 1"


@pytest.mark.parametrize("page", ["gaze", *FIGURES])
def test_no_page_is_wider_than_a_phone(browser, address, page):
    shown = FIGURES.get(page, "document.querySelector('.below svg')")
    try:
        browser.size(390, 844)
        browser.open(f"{address}/#/{page}")
        browser.wait(shown, 120)
        browser.wait("document.documentElement.scrollWidth <= document.documentElement.clientWidth", 5)
        left, right = browser.run(
            "(() => { const b = document.querySelector('nav [aria-current]').getBoundingClientRect(); return [b.left, b.right] })()"
        )
        assert left >= 0 and right <= 390  # the page's own name is in sight
    finally:
        browser.size(1240, 900)


def test_a_bad_model_name_is_told_and_survived(browser, address):
    browser.open(f"{address}/#/look")
    browser.wait("document.querySelectorAll('main svg').length >= 4", 60)
    browser.fill(".model input", "organism:two-hp")
    browser.key("Enter")
    browser.wait("document.querySelector('[role=alert]')")
    assert "did you mean 'two-hop'" in browser.text("[role=alert]") and "organism:NAME" in browser.text("[role=alert]")
    browser.fill(".model input", "organism:recall")
    browser.key("Enter")
    browser.wait("!document.querySelector('[role=alert]') && document.querySelector('.field.wide input').value.includes('=')", 60)


def test_an_upload_of_20_megabytes(gaze, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG" + b"\0" * (20 * 2**20))
    gaze.choose_file(".upload input", large)
    gaze.wait("document.querySelector('[role=alert]')")
    assert "20.0 MB" in gaze.text("[role=alert]")
    # the same past the page's own check: whatever the server does, it stays
    sent = "fetch('/api/gaze/image', {method: 'POST', body: new Blob([new Uint8Array(20 * 2 ** 20)], {type: 'image/png'})})"
    assert gaze.run(f"{sent}.then(r => r.status, () => 413)") == 413
    assert gaze.run("fetch('/api/health').then(r => r.status)") == 200
    gaze.hover(".region:nth-of-type(2)")
    assert tuple(answer(gaze, STRIP.figures[1].box)) == STRIP.figures[1].words


def test_a_restart_in_mid_stream(browser, cache):
    """The text breaks off, the page says so, and goes on by itself with the server that comes back."""
    from mainspring.workbench.serve import serving

    with serving([COMICS]) as address:
        port = int(address.rpartition(":")[2])
        browser.open(f"{address}/#/gaze")
        browser.wait(f"{ANSWER}.length >= 3", 120)
        browser.click(".switch button:nth-of-type(2)")
        browser.wait(f"{ANSWER}.length >= 4 && {ANSWER}.length < 30", 30)
    browser.wait("document.querySelector('.offline')", 30)
    with serving([COMICS], port=port):
        browser.wait("!document.querySelector('.offline')", 30)
        browser.wait(f"{ANSWER}.length >= 4", 120)
        assert browser.run("!document.querySelector('[role=alert]')")


def test_check_renders_every_page(cache):
    from mainspring.workbench.serve import check

    said = []
    good = check([COMICS], said.append)
    assert good, "\n".join(said)
    assert sum("rendered" in line for line in said) == 7 and sum(line.startswith("ok") for line in said) == len(said)


def test_a_port_in_use_is_told():
    from mainspring.errors import InputError
    from mainspring.workbench.serve import serving

    with serving() as address, pytest.raises(InputError, match="--port"), serving(port=int(address.rpartition(":")[2])):
        pass
