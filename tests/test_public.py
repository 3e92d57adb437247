"""What `import mainspring` gives, and what it leaves alone."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mainspring as ms

ROOT = Path(ms.__file__).parent


def alone(code):
    """Run code in a process of its own; returns what it prints, as JSON."""
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return json.loads(found.stdout)


def test_every_public_name_can_be_had():
    assert len(set(ms.__all__)) == len(ms.__all__)
    for name in ms.__all__:
        assert getattr(ms, name) is not None
    assert dir(ms) == sorted(ms.__all__)
    assert set(ms._HOME) == set(ms.__all__) - {"__version__"}
    namespace = {}
    exec("from mainspring import *", namespace)
    assert set(ms.__all__) <= set(namespace)


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    shown = {alias.asname or alias.name for block in blocks for node in block.body for alias in node.names}
    assert shown == set(ms._HOME)


def test_names_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(AttributeError, match=r"no 'lode'.*load"):
        _ = ms.lode
    with pytest.raises(ImportError):
        importlib.import_module("mainspring.lode")


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert ms.__version__ == version("mainspring")


def test_every_module_has_an_honest_list_of_names():
    for file in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(file.read_text())
        listed = [n for node in tree.body for n in _listed(node)]
        defined = {n for node in tree.body for n in _defined(node)}
        missing = set(listed) - defined
        lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
        assert lazy or not missing, f"{file.name} lists {missing} in __all__ and does not define it"


def _listed(node):
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    named = any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets)
    return [e.value for e in node.value.elts] if named and isinstance(node.value, ast.List | ast.Tuple) else []


def _defined(node):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(
        node, ast.Assign | ast.AnnAssign | ast.TypeAlias if sys.version_info >= (3, 12) else ast.Assign | ast.AnnAssign
    ):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    if isinstance(node, ast.If | ast.Try):
        return [n for inner in ast.iter_child_nodes(node) for n in _defined(inner)]
    return []


LIGHT = """
import json, sys
import mainspring
print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))
"""
VOCABULARY = """
import json, sys
from mainspring import at, span, parse_site, Site, Edit, Edits, Trace, errors, save_edits, load_edits
print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))
"""


def test_importing_is_light():
    heavy = {"torch", "transformers", "typer", "rich", "fastapi", "pydantic", "numpy", "safetensors", "sklearn", "scipy"}
    assert not heavy & set(alone(LIGHT))
    assert not {"transformers", "typer", "rich", "fastapi", "pydantic", "sklearn", "scipy"} & set(alone(VOCABULARY))


SIDE_EFFECTS = """
import json, logging, random, sys, warnings, locale, signal, threading
import numpy, torch

def state():
    return [
        random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), torch.initial_seed(),
        [str(f) for f in warnings.filters], [repr(h) for h in logging.root.handlers], logging.root.level,
        logging.getLogger("transformers").level, torch.get_num_threads(), torch.is_grad_enabled(), str(torch.get_default_dtype()),
        threading.active_count(), repr(sys.excepthook), repr(sys.displayhook), torch.are_deterministic_algorithms_enabled(),
        sorted(k for k in __import__("os").environ), repr(torch.nn.Module.__call__), sys.path[:],
    ]

random.seed(1); numpy.random.seed(1); torch.manual_seed(1)
from transformers import AutoModelForCausalLM, modeling_utils
{first}  # which draws a random number as it is imported
before = state()
{then}
after = state()
print(json.dumps([i for i, (a, b) in enumerate(zip(before, after)) if a != b]))
"""


def test_importing_has_no_side_effects():
    everything = [_module(p) for p in sorted(ROOT.rglob("*.py")) if "families" not in p.parts and "recipe" not in p.name]
    imports = f"import importlib\nfor name in {[n for n in everything if _installed(n)]}: importlib.import_module(name)"
    code = SIDE_EFFECTS.replace("{first}", "import rich.console").replace("{then}", imports)
    assert alone(code) == []


def _module(path):
    parts = ("mainspring", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _installed(name):
    """Modules over optional packages are left out where the package is not installed."""
    try:
        return importlib.import_module(name) is not None
    except ImportError as error:
        if str(error.name or "").startswith("mainspring"):
            raise
        return False
