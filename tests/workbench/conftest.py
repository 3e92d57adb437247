"""An application for the tests of one file, with a cache of its own."""

import pytest
from starlette.testclient import TestClient

from mainspring.workbench import create_app
from workbench.asking import COMICS


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MAINSPRING_CACHE", str(tmp_path_factory.mktemp("cache")))
        app = create_app([COMICS])
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as found:
            yield found
