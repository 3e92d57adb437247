"""Models and inputs shared by the engine's tests."""

import pytest
import torch

import mainspring as ms
from engine.tiny import BUILD, fingerprint, hooks_on


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(BUILD))
def model(request):
    """A wrapped tiny model; after the test it must be bit-identical, hook-free and in its own attention implementation."""
    module = BUILD[request.param]()
    yield from guarded(module)


@pytest.fixture
def llama():
    yield from guarded(BUILD["llama"]())


@pytest.fixture
def gpt2():
    yield from guarded(BUILD["gpt2"]())


def guarded(module):
    before, kernel, training = fingerprint(module), module.config._attn_implementation, module.training
    grads = torch.is_grad_enabled()
    yield ms.wrap(module)
    assert fingerprint(module) == before, "a parameter or buffer changed"
    assert hooks_on(module) == [], "hooks were left on"
    assert module.config._attn_implementation == kernel, "the attention implementation was not restored"
    assert module.training is training
    assert torch.is_grad_enabled() is grads
    assert all(p.grad is None for p in module.parameters()), "a parameter received a gradient"
