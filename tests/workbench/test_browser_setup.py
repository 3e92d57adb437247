"""`.ci/browser` gets a browser where it can, and never fails; with stand-ins for every program that it asks."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/browser"
if not SCRIPT.is_file():
    pytest.skip("not a checkout", allow_module_level=True)

APT = """echo "$@" >> {log}
case "$*" in *install*) {then} ;; esac"""
GETS = "printf '#!/bin/sh\n' > {bin}/chromium; chmod +x {bin}/chromium"


def ran(tmp_path, *, user=0, then="exit 100", chromium=False, apt=True, **more):
    """(what it said, what apt-get was asked)."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    log.touch()
    then = then.format(bin=programs)
    stand_ins = {"id": f"echo {user}", "timeout": 'shift; exec "$@"'}
    stand_ins |= {"apt-get": APT.format(log=log, then=then)} if apt else {}
    stand_ins |= {"chromium": ""} if chromium else {}
    for name, body in stand_ins.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    for name in ("chmod", "sh"):
        (programs / name).symlink_to(Path("/bin") / name)
    found = subprocess.run(
        ["/bin/bash", str(SCRIPT)], env={"PATH": str(programs), **more}, capture_output=True, text=True, check=True
    )
    assert found.stderr == ""
    return found.stdout, log.read_text()


def test_one_that_is_there_is_taken(tmp_path):
    assert ran(tmp_path, chromium=True) == ("", "")


def test_root_gets_it(tmp_path):
    said, asked = ran(tmp_path, then=GETS)
    assert said == "installed chromium for the browser tests\n"
    assert " update" in asked and "install --yes" in asked


@pytest.mark.parametrize("how", [{"user": 1000}, {"apt": False}, {"MAINSPRING_BROWSER": "no"}])
def test_who_cannot_is_told_in_one_line(tmp_path, how):
    said, asked = ran(tmp_path, then=GETS, **how)
    assert said.startswith("browser tests are skipped: chromium is not installed (") and said.count("\n") == 1 and asked == ""


def test_a_failure_is_one_line(tmp_path):
    said, asked = ran(tmp_path)
    assert said == "browser tests are skipped: chromium is not installed, and apt-get cannot get it here\n" and "install" in asked


def test_both_ways_to_run_the_tests_ask_for_it():
    root = SCRIPT.parents[1]
    assert "\t@.ci/browser\n" in (root / "Makefile").read_text()
    assert "make test" in (root / ".ci/run").read_text()
