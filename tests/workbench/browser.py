"""Chromium driven over a pipe: the DevTools protocol as JSON between zero bytes, so that nothing but the program is needed."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections import deque

CHROMIUM = shutil.which("chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32}


class Browser:
    """One page of a headless Chromium. `errors` holds what the page complained about."""

    def __init__(self, folder, width=1240, height=900):
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        # the program reads from descriptor 3 and writes to 4
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = [*FLAGS.split(), f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = os.fdopen(from_us, "wb", 0), os.fdopen(to_us, "rb", 0)
        self._left, self._next, self._session = b"", 0, None
        self._events, self.errors = deque(maxlen=1000), []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method, **params):
        self._next += 1
        number = self._next
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self):
        while b"\0" not in self._left:
            more = self._in.read(1 << 16)
            if not more:
                raise AssertionError("the browser has gone")
            self._left += more
        text, _, self._left = self._left.partition(b"\0")
        return json.loads(text)

    def _note(self, event):
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
            self.errors.append(str([a.get("value") for a in event["params"]["args"]]))

    # ---- what tests do ----

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def theme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.querySelector('main')")

    def run(self, script):
        """The value of an expression on the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, script, seconds=60.0):
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            if self.run(f"!!({script})"):
                return
            if time.monotonic() > end:
                raise AssertionError(f"this never became true: {script}\n{self.text()[:1500]}")
            time.sleep(0.03)

    def text(self, where="body"):
        return self.run(f"document.querySelector({where!r})?.innerText ?? ''")

    def place(self, where):
        """The middle of an element, in the window."""
        script = f"(() => {{ const e = document.querySelector({where!r}); e.scrollIntoView({{block: 'center'}});"
        box = self.run(script + " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()")
        assert box, where
        return box

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, where):
        self.mouse("mouseMoved", *self.place(where))

    def click(self, where):
        x, y = self.place(where)
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def key(self, name):
        code = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS.get(name, ord(name[0].upper()))}
        text = {"text": "\r"} if name == "Enter" else {"text": name} if len(name) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def fill(self, where, text):
        """Put a text into a field as typing it would."""
        self.run(f"(() => {{ const e = document.querySelector({where!r}); e.focus(); e.select(); }})()")
        self.call("Input.insertText", text=text)

    def choose_file(self, where, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=where)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def picture(self, path, full=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        for stream in (self._out, self._in):
            stream.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
