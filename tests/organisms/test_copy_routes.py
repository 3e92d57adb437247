"""The record of routes: shares of heads against a plain computation, and what is penalised."""

import pytest
import torch

from mainspring.organisms.copy.build import Size, build_model
from mainspring.organisms.copy.routes import MEMORY, Routes, carried
from mainspring.tasks.copying import WORDS, draw


@pytest.fixture
def module():
    torch.set_num_threads(1)
    return build_model(WORDS, Size(), 4)


@pytest.fixture
def batch():
    return draw("words", 5, torch.Generator().manual_seed(2), size=3)


def shares(module, batch):
    """By hand: what every head behind the first layer writes in front of wanted tokens, and how far it is from its mean."""
    inputs = []
    hooks = [b.attn.c_proj.register_forward_pre_hook(lambda _m, x: inputs.append(x[0])) for b in module.transformer.h[1:]]
    with torch.no_grad():
        module(batch.ids)
    [hook.remove() for hook in hooks]
    work = torch.zeros(2, 4)
    for layer in range(2):
        weight = module.transformer.h[layer + 1].attn.c_proj.weight.detach()
        for head in range(4):
            rows = slice(32 * head, 32 * head + 32)
            written = torch.stack(
                [
                    inputs[layer][r, p - 1, rows] @ weight[rows]
                    for r in range(5)
                    for p in range(batch.ids.shape[1])
                    if batch.wanted[r, p]
                ]
            )
            work[layer, head] = (written - written.mean(0)).pow(2).sum(1).mean().sqrt()
    return work / work.sum()


def overlap(routes, module, batch, route):
    with torch.no_grad(), carried(module) as z:
        module(batch.ids)
    return float(routes.overlap(module, [each[:, :-1] for each in z], batch.wanted[:, 1:], route).detach())


def test_overlap_and_running_shares_are_those_by_hand(module, batch):
    routes = Routes(module, 3)
    generator = torch.Generator().manual_seed(1)
    routes.running.copy_(torch.rand(3, 2, 4, generator=generator))
    before, mine = routes.running.clone(), shares(module, batch)
    assert overlap(routes, module, batch, 1) == pytest.approx(float((mine * (before[0] + before[2])).sum()), rel=1e-4)
    assert torch.allclose(routes.running[1], MEMORY * before[1] + (1 - MEMORY) * mine, atol=1e-5)
    assert torch.equal(routes.running[[0, 2]], before[[0, 2]])


def test_a_head_that_writes_nothing_has_no_share_and_apart_routes_do_not_overlap(module, batch):
    with torch.no_grad():
        module.transformer.h[2].attn.c_proj.weight.zero_()
    mine = shares(module, batch)
    assert float(mine[1].sum()) == 0
    routes = Routes(module, 2)
    routes.running[0] = torch.tensor([[0.0] * 4, [0.25] * 4])
    assert overlap(routes, module, batch, 1) == pytest.approx(0, abs=1e-3)
    routes.running[0] = torch.tensor([[0.25] * 4, [0.0] * 4])
    assert overlap(routes, module, batch, 1) == pytest.approx(0.25, abs=1e-3)


def test_the_penalty_has_gradients_and_no_hook_stays(module, batch):
    routes = Routes(module, 2)
    with carried(module) as z:
        module(batch.ids)
    routes.running[0] = torch.tensor([[1.0, 0, 0, 0], [0.0] * 4])
    routes.overlap(module, [each[:, :-1] for each in z], batch.wanted[:, 1:], 1).backward()
    gradient = module.transformer.h[1].attn.c_proj.weight.grad.view(4, 32, -1).norm(dim=(1, 2))
    assert gradient[0] > gradient[1:].max() > 0
    assert not any(block.attn.c_proj._forward_pre_hooks for block in module.transformer.h)
