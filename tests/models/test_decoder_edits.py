"""Maps of decoders, mixtures of experts and state-space hybrids: what is written, against plain torch."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance.zoo import CASES
from mainspring.errors import SiteRefused
from mainspring.sites import Site
from models.decoder_cases import INSIDE, NAMES, bench, mixed, plain, replaced, with_attention
from models.map_algebra import Bench, close, noise_like


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Bench:
    return bench(request.param)


def test_writes_are_those_of_plain_hooks(case: Bench):
    paths, i = CASES[case.name].facts["paths"], 1
    layer = f"{paths['layers']}.{i}"
    spots = {"resid_pre": (layer, "input"), "resid_post": (layer, "output")}
    if case.offers("attn.out", i):
        spots |= {"attn.out": (f"{layer}.{paths['attn_out']}", "output"), "attn.z": (f"{layer}.{paths['attn_out']}", "input")}
    if case.offers("mlp.post", i):
        spots |= {"mlp.out": (f"{layer}.{paths['mlp_out']}", "output"), "mlp.post": (f"{layer}.{paths['mlp_out']}", "input")}
    if case.offers("ssm.out", i):
        spots |= {"ssm.out": (f"{layer}.{paths['mixer_out']}", "output"), "ssm.y": (f"{layer}.{paths['mixer_out']}", "input")}
    for number, (name, (path, end)) in enumerate(spots.items()):
        site = case.site(name, i)
        new = case.whole[site] + noise_like(case.whole[site], number)
        flat = new.flatten(2)
        expected = replaced(case.model.module, case.inputs, path, end, flat)
        assert torch.equal(case.run(edits=[site.set(new)]).logits, expected), name
        assert not torch.equal(expected, case.run().logits)


def test_attention_flows_on(case: Bench):
    """Written values mix by the pattern; a written pattern mixes the values; written scores are a written pattern."""
    for i in with_attention(case)[:1]:
        v, z, scores, pattern = (case.site(f"attn.{n}", i) for n in ("v", "z", "scores", "pattern"))
        values = noise_like(case.whole[v], 1)
        close(case.run([z], [v.set(values)])[z], mixed(case, i, case.whole[pattern], values))
        weights = noise_like(case.whole[pattern], 2).softmax(dim=-1)
        close(case.run([z], [pattern.set(weights)])[z], mixed(case, i, weights, case.whole[v]))
        by_scores = case.run([pattern], [scores.set(weights.log())])
        close(by_scores[pattern], weights)
        close(by_scores.logits, case.run(edits=[pattern.set(weights)]).logits, 1e-4)


@pytest.mark.parametrize("name", [*INSIDE, "llama", "gemma2"])
def test_masked_scores_leave_the_rest(name: str):
    case = bench(name)
    scores, pattern, z = (case.site(f"attn.{n}", 1) for n in ("scores", "pattern", "z"))
    trace = case.run([pattern], [scores(key=0, query=slice(3, None)).mask()])
    kept = case.whole[pattern].clone()
    kept[:, :, 3:, 0] = 0
    close(trace[pattern], kept / kept.sum(dim=-1, keepdim=True))
    nothing = case.run([pattern, z], [scores(head=0).mask()])  # a query that may look at nothing gets nothing
    assert nothing[pattern][:, 0].abs().max() == 0
    assert nothing[z][:, :, 0].abs().max() == 0


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe", "jamba"])
def test_router_logits_choose_the_experts(name: str):
    case = bench(name)
    path = CASES[name].facts["paths"]
    i = CASES[name].facts["moe_layers"][-1]
    block = case.layer(i).feed_forward if name == "jamba" else case.layer(i).mlp
    router = block.router if name == "jamba" else block.gate
    site = case.site("mlp.router", i)
    logits = noise_like(case.whole[site], 1)
    renormalise = name != "jamba"

    def choose(module: nn.Module, args: Any, output: Any) -> Any:
        weights, chosen = logits.flatten(0, 1).softmax(dim=-1).topk(2, dim=-1)
        return logits, weights / weights.sum(dim=-1, keepdim=True) if renormalise else weights, chosen

    handle = router.register_forward_hook(choose)
    with torch.no_grad():
        expected = case.model.module(**case.inputs).logits
    handle.remove()
    close(case.run(edits=[site.set(logits)]).logits, expected)
    given = plain(
        case.model.module, case.inputs, {"x": (f"{path['layers']}.{i}.{'feed_forward' if name == 'jamba' else 'mlp'}", "input")}
    )
    close(case.whole[site], nn.functional.linear(given["x"], router.weight).detach())
    with pytest.raises(SiteRefused, match="experts"):
        case.run([case.site("mlp.post", i)])


def test_a_dense_layer_among_mixtures_has_neurons():
    case = bench("qwen3-moe")
    assert [case.offers("mlp.post", i) for i in range(3)] == [False, True, False]
    assert [case.offers("mlp.router", i) for i in range(3)] == [True, False, True]


@pytest.mark.parametrize("name", INSIDE)
def test_threads_do_not_see_each_other(name: str):
    case = bench(name)
    edit = case.site("attn.scores", 1)(head=0, key=0).mask()
    edited, untouched = case.run(edits=[edit]).logits, case.run().logits
    assert not torch.equal(edited, untouched)
    wrong: list[str] = []

    def repeat(run: Callable[[], Tensor], expected: Tensor) -> None:
        for _ in range(10):
            if not torch.equal(run(), expected):
                wrong.append(name)

    with torch.no_grad():
        jobs = [(lambda: case.run(edits=[edit]).logits, edited), (lambda: case.model.module(**case.inputs).logits, untouched)]
        threads = [threading.Thread(target=repeat, args=job) for job in jobs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


def test_a_run_inside_an_edit_is_a_run_of_its_own():
    case = bench("gptj")
    scores, plain_logits = case.site("attn.scores", 1), case.run().logits
    seen: list[Tensor] = []

    def peek(value: Tensor) -> Tensor:
        seen.append(case.run([scores]).logits)
        return value * 2

    case.run(edits=[case.site("attn.z", 1).apply(peek), scores(head=0, key=0).mask()])
    assert torch.equal(seen[0], plain_logits)


@pytest.mark.parametrize(
    "name", ["gptj", "gpt-neo", "bloom", "mpt", "falcon-old", "falcon-new", "mamba", "mamba2", "jamba", "opt"]
)
def test_generation_keeps_sites(name: str):
    """Values of a cached generation are those of one run over the whole text."""
    case = bench(name)
    layer = 1
    wanted = [
        "attn.q",
        "attn.k",
        "attn.v",
        "attn.z",
        "ssm.B",
        "ssm.conv",
        "ssm.dt",
        "ssm.y",
        "mlp.post",
        "resid_post",
        "resid_mid",
    ]
    sites = [case.site(n, layer) for n in wanted if case.offers(n, layer)]
    trace = case.model.generate(case.inputs, max_new_tokens=4, read=sites)
    whole = case.model.run({"input_ids": trace.tokens}, read=sites, until="end")
    for site in sites:
        n = min(trace[site].shape[1], whole[site].shape[1])
        assert n >= case.inputs["input_ids"].shape[1] + 3
        close(trace[site][:, :n], whole[site][:, :n], 1e-3)


def test_the_same_tensor_is_visited_in_the_order_of_the_vocabulary():
    """Reads of a sum see edits of its parts, whichever is named first."""
    case = bench("granite")
    out, add, share = (case.site(f"attn.{n}", 1) for n in ("out", "add", "head_out"))
    for reads in ([add, out], [out, add]):
        trace = case.run(reads, [share(head=0).ablate("zero")])
        close(trace[add], trace[out] * case.model.config.residual_multiplier)
        close(case.whole[out] - case.whole[share][:, :, 0], trace[out])


def test_post_norm_streams_are_outputs_of_norms():
    case = bench("opt-350m")
    assert case.layout.residual == "post-norm"
    site = case.site("resid_mid", 1)
    new = noise_like(case.whole[site], 1)
    norm = Site("resid_post", 1)
    trace = case.run([norm, case.site("mlp.add", 1)], [site.set(new)])
    close(case.layer(1).final_layer_norm(new + trace[case.site("mlp.add", 1)]).detach(), trace[norm])
