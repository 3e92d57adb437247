"""The environments that contenders run in, made by the benchmark itself under ``.benchmarks-env/``.

All peers go into one environment when pip can install them together, else each gets its own. torch is
installed first and pinned, so no package brings another. mainspring is installed from this checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".benchmarks-env"

TORCH = "torch==2.13.0"
BASE = ("transformers==5.23.0",)
PEERS: dict[str, str] = {
    "nnsight": "nnsight==0.8.1",
    "TransformerLens": "transformer-lens==4.3.0",
    "pyvene": "pyvene==0.1.8",
    "interp-engine": "interp-engine==1.14.2",
}
"""Contender and the pin of its distribution. mainspring, plain hooks and bare need none."""


class NotInstalled(Exception):
    """pip refused. The text is the last line it said."""


@dataclass
class Environments:
    """Which Python runs each contender, and for those that have none the reason."""

    pythons: dict[str, Path] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Name of an environment and the contenders in it."""

    def put(self, group: str, python: Path, contenders: list[str]) -> None:
        """Say that these contenders run in this environment."""
        self.groups.setdefault(group, []).extend(contenders)
        self.pythons.update(dict.fromkeys(contenders, python))


def prepare(contenders: list[str]) -> Environments:
    """Make or reuse what the contenders need; never raises because one of them cannot be installed."""
    found = Environments()
    peers = {name: PEERS[name] for name in contenders if name in PEERS}
    _place_peers(found, peers)
    group, python = _shared_environment(found)
    own = [name for name in contenders if name not in PEERS]
    if "mainspring" in own:
        try:
            _install_mainspring(python)
        except NotInstalled as reason:
            own.remove("mainspring")
            found.reasons["mainspring"] = f"not installed: {reason}"
    found.put(group, python, own)
    return found


def _place_peers(found: Environments, peers: dict[str, str]) -> None:
    """All peers in one environment, whichever were asked for; if that fails, each alone."""
    if not peers:
        return
    try:
        found.put("all", _environment("all", tuple(PEERS.values())), list(peers))
        return
    except NotInstalled as reason:
        print(f"the peers do not install together ({reason}); making one environment each")
    for name, pin in peers.items():
        try:
            found.put(name, _environment(name, (pin,), common=()), [name])
        except NotInstalled as reason:
            found.reasons[name] = f"not installed: {reason}"


def _shared_environment(found: Environments) -> tuple[str, Path]:
    """Where the contenders without a pin run: with the peers if those share one, else with nobody."""
    if "all" in found.groups:
        return "all", found.pythons[found.groups["all"][0]]
    return "plain", _environment("plain", ())


def _environment(name: str, pins: tuple[str, ...], common: tuple[str, ...] = BASE) -> Path:
    """The Python of the named environment, made when it is missing or was made from other pins."""
    home = HOME / name
    python, stamp = home / "bin" / "python", home / "pins.txt"
    wanted = "\n".join((TORCH, *common, *pins)) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {home.relative_to(ROOT)}: {TORCH}, {', '.join((*common, *pins))}", flush=True)
    venv.create(home, with_pip=True, clear=True)
    _pip(python, TORCH)
    _pip(python, TORCH, *common, *pins)
    stamp.write_text(wanted)
    return python


def _install_mainspring(python: Path) -> None:
    """Install this checkout, editable; again only when its metadata has changed."""
    project = ROOT / "pyproject.toml"
    if not project.exists():
        raise NotInstalled("the checkout has no pyproject.toml")
    stamp = python.parents[1] / "mainspring.txt"
    if stamp.exists() and stamp.read_text() == project.read_text():
        return
    _pip(python, TORCH, *BASE, "--editable", str(ROOT))
    stamp.write_text(project.read_text())


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")]
        raise NotInstalled(without_paths((errors or ["pip failed"])[-1].removeprefix("ERROR: ")))


def without_paths(text: str) -> str:
    """The text with absolute paths cut to their last part: results name no machine."""
    return re.sub(r"(?:/[\w.+-]+){2,}", lambda match: match[0].rsplit("/", 1)[1], text)


if __name__ == "__main__":
    made = prepare([*PEERS, "mainspring"])
    print(made.groups, made.reasons, file=sys.stderr)
