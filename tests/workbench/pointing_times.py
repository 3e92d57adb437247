"""Milliseconds between a hover and the text, in a headless Chromium beside a server in a process of its own.

    python tests/workbench/pointing_times.py [HOVERS]

"first word" is the first one that was chosen under the new aim, "changed" the first of these that an aim can change: numbers and colons
are the same wherever one points. Both are taken where they appear on the page. It is no test: times depend on what else the machine does.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workbench.browser import Browser

PORT = 7177
WORDS = "[...document.querySelectorAll('.words')].find(w => w.ariaLabel === 'Pointed')"
WATCH = """((host) => {
  const structure = new Set(['one', 'two', 'three', 'four', 'five', 'six', ':', '.', '']);
  const seen = window.seen = {since: 0, first: 0, changed: 0};
  new MutationObserver(() => {
    if (!seen.since || seen.changed) return;
    const now = [...host.querySelectorAll('[data-aim]')].filter((w) => w.dataset.aim === seen.aim);
    if (now.length && !seen.first) seen.first = performance.now() - seen.since;
    if (now.some((w) => !structure.has(w.textContent.trim()))) seen.changed = performance.now() - seen.since;
  }).observe(host, {childList: true, subtree: true, attributes: true});
})"""
SINCE = """document.querySelector('.picture').addEventListener(
  'pointermove', () => (seen.since ||= performance.now()), {capture: true, once: true})"""


def hover(page: Browser, k: int) -> tuple[float, float]:
    """(first word, first changed word)."""
    x, y = page.place(f".region:nth-of-type({k})")
    aim = page.run(f"JSON.stringify(regions[{k - 1}])")
    page.run(f"Object.assign(seen, {{first: 0, changed: 0, aim: {aim!r}, since: 0}})")
    page.run(SINCE)
    page.mouse("mouseMoved", x, y)
    page.wait("seen.changed", 20)
    return page.run("seen.first"), page.run("seen.changed")


def say(name: str, found: list[tuple[float, float]]) -> None:
    for what, times in zip(("first word", "changed"), zip(*found, strict=True), strict=True):
        ordered = sorted(times)
        p90 = ordered[int(0.9 * (len(ordered) - 1))]
        print(f"{name:44} {what:11} median {statistics.median(ordered):4.0f}  p90 {p90:4.0f}  max {ordered[-1]:4.0f}", flush=True)


def choose(page: Browser, mode: int) -> None:
    page.mouse("mouseMoved", 5, 5)
    page.run(f"document.querySelector('.switch button:nth-of-type({mode})').click()")


def measure(page: Browser, hovers: int) -> None:
    page.open(f"http://127.0.0.1:{PORT}/#/gaze")
    page.wait(f"{WORDS}?.querySelectorAll('[data-aim]').length >= 3 && document.querySelector('.below svg')", 120)
    page.run("fetch('/api/gaze/images').then(r => r.json()).then(list => { window.regions = list[0].regions })")
    page.run(f"{WATCH}({WORDS})")
    found = []
    for i in range(hovers):
        choose(page, 1)
        time.sleep(0.3)
        found.append(hover(page, 1 + i % 6))
    say("answer", found)
    for later in (0.0, 0.3, 1.5):
        found = []
        for i in range(hovers):
            choose(page, 1)
            page.wait(f"{WORDS}.querySelectorAll('[data-aim]').length === 3")
            time.sleep(0.5)
            page.place(f".region:nth-of-type({1 + i % 6})")
            choose(page, 2)
            time.sleep(later)
            found.append(hover(page, 1 + i % 6))
        say(f"first after the switch to narrate, {later} s later", found)
    found = []
    for i in range(hovers):
        if not i % 4:
            choose(page, 1)
            time.sleep(0.5)
            choose(page, 2)
            time.sleep(1.0)
        found.append(hover(page, 1 + i % 6))
        time.sleep(0.1 * (i % 5))
    say("narrate, while it is written", found)


if __name__ == "__main__":
    command = [str(Path(sys.executable).with_name("mainspring")), "workbench", "--port", str(PORT), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            page = Browser(profile)
            try:
                measure(page, int(sys.argv[1]) if len(sys.argv) > 1 else 30)
            finally:
                page.close()
    finally:
        server.terminate()
        server.wait()
