"""For all tests: one thread, and a guard against hooks that stay on.

With `MAINSPRING_TYPES=1` every annotation of mainspring is checked as the code runs, which takes about twice the time. Tests that
pass wrong types on purpose carry the marker `wrong_types` and are then left out.
"""

import os

if os.environ.get("MAINSPRING_TYPES"):
    import jaxtyping

    jaxtyping.install_import_hook("mainspring", "checking.checked")  # before anything of mainspring is imported

import pytest
import torch

torch.set_num_threads(1)


def pytest_configure(config):
    if os.environ.get("MAINSPRING_TYPES"):  # the checker picks at random which items of a container it looks at
        config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("MAINSPRING_TYPES"):
        wrong = [item for item in items if item.get_closest_marker("wrong_types")]
        config.hook.pytest_deselected(items=wrong)
        items[:] = [item for item in items if item not in wrong]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@pytest.fixture
def hook_free():
    """Give it modules; after the test none of them, nor anything inside them, may carry a hook."""
    given: list[torch.nn.Module] = []

    def guard(module):
        given.append(module)
        return module

    yield guard
    left = [
        f"{type(g).__name__} {name}" for g in given for name, m in g.named_modules() if any(getattr(m, kind) for kind in _HOOKS)
    ]
    assert left == [], "hooks were left on"
