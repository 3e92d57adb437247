"""Hooks of a run among hooks of others: their order, named arguments, and nothing left behind."""

import threading

import pytest
import torch
from torch import nn

from mainspring.engine.hooks import put_after, put_before, take_off


class Scaled(nn.Module):
    def forward(self, x, by=2.0):
        return x * by


@pytest.fixture
def module():
    return Scaled()


def dictionaries(module):
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._forward_hooks_with_kwargs,
        module._forward_pre_hooks_with_kwargs,
    )


def test_the_first_after_comes_before_those_of_others_and_the_last_behind_them(module):
    seen, entries = [], []
    handle = module.register_forward_hook(lambda m, args, out: seen.append("theirs"))
    put_after(module, lambda m, args, out: seen.append("last"), entries)
    put_after(module, lambda m, args, out: seen.append("first"), entries, first=True)
    module(torch.ones(1))
    assert seen == ["first", "theirs", "last"]
    take_off(entries)
    module(torch.ones(1))
    assert seen[3:] == ["theirs"]
    handle.remove()


def test_what_hooks_return_is_taken(module):
    entries = []
    put_before(module, lambda m, args: (args[0] + 1,), entries)
    put_before(module, lambda m, args, kwargs: (args, {"by": 3.0}), entries, named=True)
    put_after(module, lambda m, args, out: out - 1, entries)
    assert module(torch.ones(1)).item() == 5.0
    take_off(entries)
    assert module(torch.ones(1)).item() == 2.0


def test_the_first_before_comes_before_those_of_others(module):
    seen, entries = [], []
    handle = module.register_forward_pre_hook(lambda m, args: seen.append("theirs"))
    put_before(module, lambda m, args: seen.append("first"), entries, first=True)
    module(torch.ones(1))
    take_off(entries)
    handle.remove()
    assert seen == ["first", "theirs"]


def test_nothing_is_left_and_taking_off_twice_does_no_harm(module):
    entries = []
    put_before(module, lambda m, args, kwargs: None, entries, named=True)
    put_after(module, lambda m, args, out: None, entries)
    again = list(entries)
    take_off(entries)
    take_off(again)
    assert not entries and not any(dictionaries(module))


def test_those_of_others_stay_whatever_torch_called_them(module):
    theirs = [module.register_forward_hook(lambda m, args, out: out + 1) for _ in range(3)]
    entries = []
    for _ in range(3):
        put_after(module, lambda m, args, out: out * 10, entries)
    assert len(module._forward_hooks) == 6
    take_off(entries)
    assert module(torch.ones(1)).item() == 5.0
    for handle in theirs:
        handle.remove()


def test_threads_never_take_each_others_place(module):
    """Each thread puts a hook on and must find it called, however the others come and go."""
    missed = []

    def work(value):
        for _ in range(300):
            seen, entries = [], []
            put_after(module, lambda m, args, out, seen=seen: seen.append(args[0]), entries)
            mine = torch.tensor(value)
            module(mine)
            take_off(entries)
            if not any(found is mine for found in seen):
                missed.append(value)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not missed and not any(dictionaries(module))
