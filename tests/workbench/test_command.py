"""`mainspring workbench` on the command line."""

import gc
import os
import subprocess
import sys
import threading

import pytest
from transformers import logging
from typer.testing import CliRunner

from mainspring import cli
from mainspring.workbench import serve


@pytest.fixture(autouse=True)
def quiet_again():
    """The command silences transformers, as a process of its own may."""
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)
    logging.enable_progress_bar()


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_check_exits_with_what_it_found(monkeypatch, good, code):
    asked = []
    monkeypatch.setattr(serve, "check", lambda names, say: asked.append(list(names)) or say("looked") or good)
    found = CliRunner().invoke(cli.app, ["workbench", "organism:recall", "--check"])
    assert (found.exit_code, found.output, asked) == (code, "looked\n", [["organism:recall"]])


def test_options_reach_the_server(monkeypatch):
    asked = []
    monkeypatch.setattr(serve, "serve", lambda *given: asked.append(given[:4]))
    assert CliRunner().invoke(cli.app, ["workbench", "a", "b", "--port", "0", "--no-browser"]).exit_code == 0
    assert asked == [(["a", "b"], "127.0.0.1", 0, False)]


@pytest.mark.parametrize(("own", "wanted"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_that_wait_leave_the_cores_to_the_browser(own, wanted):
    """It is said before torch is loaded, which reads it then; who has said something else is heard."""
    code = (
        "import os, sys\nfrom mainspring.cli import app\nfrom typer.testing import CliRunner\n"
        "assert 'torch' not in sys.modules\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Watch(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': print('torch with', os.environ.get('OMP_WAIT_POLICY')); os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "sys.argv = ['mainspring', 'workbench', '--check']\napp()\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | own | {"PYTHONUNBUFFERED": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout == f"torch with {wanted}\n"


def test_check_finds_a_page_that_fails(monkeypatch):
    """A model that cannot be opened is no pass."""
    monkeypatch.setattr(serve, "CHROMIUM", ())
    said = []
    assert not serve.check(["organism:nothing"], said.append)
    assert any(line.startswith("FAIL") and "404" in line for line in said)
    assert any("there is no Chromium" in line for line in said)


def test_a_request_that_does_not_end_is_cut_off(monkeypatch):
    """A server that stops leaves no connection behind, whatever is still asked of it."""
    import httpx

    from mainspring.workbench.routes import models

    asked, gate, answers = threading.Event(), threading.Event(), []
    monkeypatch.setattr(models, "entries", lambda: asked.set() or (gate.wait(30) and ()))
    monkeypatch.setattr(serve, "GRACE", 1)

    def ask(address):
        try:
            answers.append(httpx.get(f"{address}/api/models", timeout=60).status_code)
        except httpx.TransportError:
            answers.append(500)
        gate.set()

    with serve.serving() as address:
        thread = threading.Thread(target=ask, args=[address])
        thread.start()
        assert asked.wait(30)
    thread.join(30)
    assert answers == [500]
    gc.collect()  # where an open transport would be told


def test_naming_the_commands_loads_no_server():
    code = "import sys; from mainspring import cli; print({'fastapi', 'uvicorn', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_without_the_extra_the_error_names_it(monkeypatch):
    from mainspring.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    found = CliRunner().invoke(cli.app, ["workbench"])
    assert isinstance(found.exception, MissingExtra) and "mainspring[serve]" in str(found.exception)
