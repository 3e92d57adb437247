"""What a run leaves behind: nothing. Failures, runs inside runs, threads, and the state of torch and of the model."""

import threading

import pytest
import torch

import mainspring as ms
from engine.tiny import BUILD, fingerprint, hooks_on, ids
from mainspring import at

TOKENS = torch.tensor(ids(6, 6))


# ---- failures ------------------------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


def boom(v):
    raise Boom


@pytest.mark.parametrize(
    "site", ["embed", "layers.1.attn.z", "layers.1.attn.scores", "layers.1.attn.q", "layers.2.mlp.out", "logits"]
)
def test_an_exception_in_an_edit_leaves_nothing_behind(model, site):
    before, kernel = model.run(TOKENS).logits, model.module.config._attn_implementation
    for options in ({}, {"grad_of": lambda t: t.logits.sum(), "read": at.layers[0].attn.pattern}):
        with pytest.raises(Boom):
            model.run(TOKENS, edits=at[site].apply(boom), **options)
        assert hooks_on(model.module) == []
        assert model.module.config._attn_implementation == kernel
        assert torch.equal(model.run(TOKENS).logits, before)


def test_an_exception_in_the_model_leaves_nothing_behind(model):
    handle = model.module.lm_head.register_forward_hook(boom_hook)
    with pytest.raises(Boom):
        model.run(TOKENS, edits=at.layers[0].attn.pattern.scale(2.0), read=at.logits)
    handle.remove()
    assert hooks_on(model.module) == []


def boom_hook(module, args, output):
    raise Boom


# ---- nesting -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["layers.1.resid_mid", "layers.1.attn.pattern", "layers.0.attn.z"])
def test_a_run_inside_an_edit(model, site):
    """The inner run sees nothing of the outer one, and the outer goes on as before."""
    inner_edit = at.layers[1].attn.scores(head=0).scale(0.5)
    expected_inner = model.run(TOKENS, edits=inner_edit).logits
    found = {}

    def fn(v):
        found["plain"] = model.run(TOKENS).logits
        found["edited"] = model.run(TOKENS, edits=inner_edit).logits
        found["stopped"] = model.run(TOKENS, read=at.layers[0].resid_post)[at.layers[0].resid_post]
        return v * 2

    outer = model.run(TOKENS, edits=[at[site].apply(fn), at.layers[2].attn.pattern(head=1).scale(0.5)])
    expected = model.run(TOKENS, edits=[at[site].scale(2.0), at.layers[2].attn.pattern(head=1).scale(0.5)])
    assert torch.equal(outer.logits, expected.logits)
    assert torch.equal(found["plain"], model.run(TOKENS).logits)
    assert torch.equal(found["edited"], expected_inner)
    assert torch.equal(found["stopped"], model.run(TOKENS, read=at.layers[0].resid_post)[at.layers[0].resid_post])


def test_a_failing_inner_run_does_not_disturb_the_outer(model):
    def fn(v):
        with pytest.raises(Boom):
            model.run(TOKENS, edits=at.layers[0].attn.pattern.apply(boom))
        return v * 2

    site = at.layers[1].attn.pattern
    assert torch.equal(model.run(TOKENS, edits=site.apply(fn)).logits, model.run(TOKENS, edits=site.scale(2.0)).logits)


# ---- threads -------------------------------------------------------------------------------------------------------------------


def test_threads_on_one_model_do_not_see_each_other(model):
    tokens = [torch.tensor(ids(6, 6, seed=s)) for s in range(3)]
    jobs = [
        lambda: (
            model.run(tokens[0], edits=[at.layers[0].attn.pattern(head=1).scale(0.3), at.layers[1].mlp.out.scale(2.0)]).logits
        ),
        lambda: (
            model.run(tokens[1], edits=[at.layers[0].attn.scores(head=2, key=0).mask(), at.layers[1].resid_mid.scale(0.5)]).logits
        ),
        lambda: model.run(tokens[2], read=at.layers[1].attn.z)[at.layers[1].attn.z],
        lambda: model.run(tokens[0], read=at.layers[1].mlp.out, grad_of=lambda t: t.logits[:, -1, 3]).grad[at.layers[1].mlp.out],
    ]
    with torch.no_grad():
        plain = model.module(tokens[1]).logits
    expected = [job() for job in jobs]
    wrong, start = [], threading.Barrier(len(jobs) + 1)

    def work(job, answer):
        try:
            start.wait()
            for _ in range(50):
                if not torch.equal(job(), answer):
                    wrong.append("a result differs from the sequential one")
        except BaseException as error:  # a thread's exception would be lost
            wrong.append(repr(error))

    def untouched():
        """The bare module, run beside the others, is nobody's business."""
        with torch.no_grad():
            return model.module(tokens[1]).logits

    jobs.append(untouched)
    threads = [threading.Thread(target=work, args=pair) for pair in zip(jobs, [*expected, plain], strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- the state of torch and of the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_state_is_left_as_it_was(training, grad, frozen):
    module = BUILD["llama"]().train(training)
    module.requires_grad_(not frozen)
    model, before = ms.wrap(module), fingerprint(module)
    module.model.layers[0].eval()  # a mixed state is kept too
    state = {name: m.training for name, m in module.named_modules()}
    with torch.set_grad_enabled(grad):
        trace = model.run(TOKENS, read=at.layers[1].attn.z, edits=at.layers[0].attn.scores.scale(1.1))
        assert torch.is_grad_enabled() is grad
        assert not trace[at.layers[1].attn.z].requires_grad
        graded = model.run(TOKENS, read=at.layers[1].attn.z, grad_of=lambda t: t.logits[:, -1, 3])
        assert torch.is_grad_enabled() is grad
        assert not graded.grad[at.layers[1].attn.z].requires_grad
        assert not graded.logits.requires_grad
        assert not graded[at.layers[1].attn.z].requires_grad
        with pytest.raises(Boom):
            model.run(TOKENS, edits=at.embed.apply(boom))
        assert torch.is_grad_enabled() is grad
    assert {name: m.training for name, m in module.named_modules()} == state
    assert all(p.requires_grad is not frozen and p.grad is None for p in module.parameters())
    assert fingerprint(module) == before
    assert hooks_on(module) == []


def test_the_global_random_state_is_left_alone(model):
    before = torch.get_rng_state()
    model.run(TOKENS, edits=at.layers[1].mlp.out.ablate("resample", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
