"""Edges of every family that has them: a receiver that gets all of another run has that run's value, and nobody else does."""

import threading
from functools import cache

import pytest
import torch

import mainspring as ms
from conformance.zoo import CASES
from engine.edges.hand import build
from engine.edges.test_patch import CLEAN, OTHER
from engine.tiny import hooks_on
from mainspring import at
from mainspring.engine.edges.names import Receiver
from mainspring.engine.edges.senders import Shares
from mainspring.errors import SiteRefused

WITH = [
    "gpt2", "gpt-neox-sequential", "gptj", "gpt-neo", "opt", "bloom", "mpt", "falcon-old", "falcon-new", "falcon-11b",
    "falcon-alibi", "qwen3", "mixtral", "gemma3-text", "phi3", "olmo2", "granite", "starcoder2", "cohere2", "stablelm-parallel",
    "llava",
]  # fmt: skip
WITHOUT = {
    "opt-350m": "post-norm", "bloom-post-residual": "post-norm", "bert": "post-norm", "t5": "cross-attention",
    "mamba": "state-space", "falcon-h1": "state-space", "vit": "tokens", "modernbert": "through a norm alone",
    "siglip": "text alone",
}  # fmt: skip


@cache
def model_of(name):
    module = CASES[name].build()
    if name in ("gemma3-text", "olmo2"):
        # behind a norm a bias too differs from run to run; it belongs to no sender, and no released checkpoint has one
        for layer in module.model.layers:
            layer.self_attn.o_proj.bias.data.zero_()
    return ms.wrap(module)


def tokens(seed):
    return torch.randint(3, 30, (2, 6), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", WITH)
def test_a_receiver_with_all_edges_has_the_other_runs_value(name):
    model, layer = model_of(name), 1
    clean, other = tokens(1), tokens(2)
    graph = model.graph()
    sites = {part: f"layers.{layer}.attn.{part}_proj" for part in "qkv"}
    read = [*sites.values(), f"layers.{layer}.mlp.out"]
    here, there = (model.run(t, read=read, until="end") for t in (clean, other))
    shares = Shares.of(model, other)
    for kind, head in (("q", 1), ("k", 0), ("v", graph.kv_heads - 1)):
        edges = [e for e in graph.edges if e.receiver == Receiver(kind, layer, head)]
        found = model.patch_edges(clean, edges, shares, read=read)
        for part in "qkv":
            for h in range(found[sites[part]].shape[2]):
                want = there if (part, h) == (kind, head) else here
                assert torch.allclose(found[sites[part]][:, :, h], want[sites[part]][:, :, h], rtol=1e-4, atol=1e-5)
    edges = [e for e in graph.edges if e.receiver == Receiver("mlp", layer)]
    found = model.patch_edges(clean, edges, shares, read=read)
    out = f"layers.{layer}.mlp.out"
    assert torch.allclose(found[out], there[out], rtol=1e-4, atol=1e-4 * float(there[out].abs().max()))
    assert not torch.allclose(here[out], there[out], rtol=1e-2, atol=1e-3 * float(there[out].abs().max()))
    logits = model.patch_edges(clean, "* -> logits", shares).logits
    assert torch.allclose(logits, there.logits, rtol=1e-4, atol=1e-4 * float(there.logits.abs().max()))
    assert hooks_on(model.module) == []


@pytest.mark.parametrize("name", WITH)
def test_shares_sum_to_the_stream(name):
    model = model_of(name)
    shares, last = Shares.of(model, tokens(3)), at.layers[-1].resid_post
    stream = model.run(tokens(3), read=last)[last]
    assert float((sum(shares.values.values()) + sum(shares.biases) - stream).abs().max()) < 1e-5 * float(stream.abs().max())


@pytest.mark.parametrize("name", WITHOUT)
def test_architectures_without_edges_say_why(name):
    with pytest.raises(SiteRefused, match=WITHOUT[name]):
        model_of(name).graph()


def test_threads_do_not_see_each_other():
    known, model = ms.wrap(build("llama")), ms.wrap(build("llama"))  # the second is first looked at inside the threads
    shares = Shares.of(known, [OTHER])
    edges = ["layers.0.mlp -> layers.1.*", "embed -> logits", "layers.0.head.1 -> *"]
    want = [known.patch_edges([CLEAN], e, shares).logits for e in edges] + [known.run([CLEAN]).logits]
    wrong = []

    def work(i):
        for _ in range(15):
            found = model.run([CLEAN]) if i == 3 else model.patch_edges([CLEAN], edges[i], shares)
            if not torch.equal(found.logits, want[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hooks_on(model.module) == []


def test_a_run_that_fails_leaves_no_hook():
    model = ms.wrap(build("gpt2"))
    broken = Shares.of(model, [OTHER])
    values = dict(broken.values)
    sender = next(s for s in values if s.kind == "mlp")
    values[sender] = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RuntimeError):
        model.patch_edges([CLEAN], "layers.0.mlp -> *", Shares(values, broken.biases, broken.rows))
    assert hooks_on(model.module) == []
    model.run([CLEAN])


def test_half_precision():
    model = ms.wrap(CASES["gemma2"].build().to(torch.bfloat16))
    clean, other = tokens(1), tokens(2)
    found, want = model.patch_edges(clean, "* -> *", other).logits.float(), model.run(other).logits.float()
    assert float((found - want).abs().max()) < 0.05 * float(want.abs().max())
