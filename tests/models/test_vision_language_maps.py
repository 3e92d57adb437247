"""Maps of the vision-language models, against plain torch: the language model, the vision tower, and what passes between them."""

import pytest
import torch

from conformance.zoo import CASES
from mainspring import at
from mainspring.errors import SiteRefused
from mainspring.models.load import wrap
from models import map_algebra as algebra
from models.map_algebra import Bench

FAMILIES = ("llava", "gemma3", "paligemma", "paligemma2", "idefics3", "smolvlm", "qwen2-vl", "qwen2.5-vl", "qwen3-vl")
STACKS = [(name, stack) for name in FAMILIES for stack in ("", "vision")]


@pytest.fixture(scope="module", params=STACKS, ids=lambda p: f"{p[0]}-{p[1] or 'main'}")
def case(request):
    torch.set_num_threads(1)
    return algebra.bench(*request.param)


def test_reading_changes_nothing(case: Bench):
    algebra.check_reading_changes_nothing(case)


def test_heads(case: Bench):
    algebra.check_heads(case)


def test_mlp(case: Bench):
    algebra.check_mlp(case)


def test_residual(case: Bench):
    algebra.check_residual(case)


def test_noop(case: Bench):
    algebra.check_noop(case)


def test_writing(case: Bench):
    algebra.check_writing(case)


def test_stream_is_one(case: Bench):
    algebra.check_stream_is_one(case)


def test_head_knockout(case: Bench):
    algebra.check_head_knockout(case)


def test_gradients(case: Bench):
    algebra.check_gradients(case, exact=False)


def test_bfloat16(case: Bench):
    algebra.check_bfloat16(case)


# ---- padding, and torch's own hooks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_row_is_what_it_is_alone(name, side):
    """Rows with two images, one and none. Rotated queries and keys count from the padding where a model derives no positions."""
    bench = algebra.bench(name)
    shifted = side == "left" and not name.startswith("qwen")
    skipped = ("attn.q", "attn.k") if shifted else ()
    algebra.check_padding(bench, side, [s for s in algebra.every_site(bench) if s.name not in skipped])


def _hooks(name: str, stack: str) -> dict[str, str]:
    qwen = name.startswith("qwen") and stack == "vision"
    facts = CASES[name].facts["paths"]
    out = facts["vision_attn_out" if stack else "attn_out"]
    down = "mlp.fc2" if stack and not qwen else facts["vision_mlp_out" if stack else "mlp_out"]
    return {"attn.out": out, "mlp.out": down, "resid_post": ""}


def test_values_are_those_of_plain_hooks(case: Bench):
    algebra.check_plain_hooks(case, _hooks(case.name, case.stack))


# ---- between the tower and the language model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request):
    return algebra.bench(request.param)


def test_image_tokens_are_what_the_language_model_reads(whole: Bench):
    trace = whole.run([at.embed, at.image_tokens])
    (tokens,) = whole.model.image_regions(whole.inputs)
    shown = [t for t in tokens if t.slot is not None]
    assert len(shown) == int((whole.inputs["input_ids"] == CASES[whole.name].facts["image_token"]).sum())
    for token in shown:
        assert torch.equal(trace[at.embed][0, token.position], trace[at.image_tokens][token.slot])


def test_an_edit_of_one_image_token_reaches_one_position(whole: Bench):
    (tokens,) = whole.model.image_regions(whole.inputs)
    token = [t for t in tokens if t.slot is not None][-2]
    image, patch = token.slot
    change = at.image_tokens(image=image, patch=patch).add(1.0)
    before, after = whole.run([at.embed])[at.embed], whole.run([at.embed], [change])[at.embed]
    moved = (before - after).abs().amax(dim=-1)[0] > 1e-3
    assert moved.nonzero().flatten().tolist() == [token.position]


def test_the_projector_is_the_connector(whole: Bench):
    seen = []
    module = algebra.find_module(whole.model.module, CASES[whole.name].facts["paths"]["projector"])
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    trace = whole.run([at.projector, at.vision.layers[-1].resid_post])
    handle.remove()
    assert torch.equal(trace[at.projector], seen[0].reshape(trace[at.projector].shape))
    mean = whole.run([at.image_tokens], [at.image_tokens.ablate("mean")])[at.image_tokens]
    assert (mean - mean[:1, :1]).abs().max() < 1e-5


def test_an_edit_of_the_tower_reaches_the_language_model_at_every_run(whole: Bench):
    """Also at the second: transformers keeps hooks of its own on the layers whose states a projector asks for."""
    edit = at.vision.layers[1].resid_post(dim=0).add(3.0)  # a constant would be lost in the norm
    plain = whole.run([at.embed])[at.embed]
    for _ in range(2):
        assert (whole.run([at.embed], [edit])[at.embed] - plain).abs().max() > 1e-2


def test_what_no_projector_reads_changes_nothing():
    bench = algebra.bench("llava")
    edit = at.vision.layers[2].resid_post(dim=0).add(3.0)
    assert torch.equal(algebra.result_of(bench.run(edits=[edit]).output), algebra.result_of(bench.run().output))


def test_deepstack_adds_to_image_tokens_between_layers():
    bench = algebra.bench("qwen3-vl")
    image = bench.inputs["input_ids"][0] == CASES["qwen3-vl"].facts["image_token"]
    for i in range(bench.depth - 1):
        step = bench.whole[bench.site("resid_pre", i + 1)] - bench.whole[bench.site("resid_post", i)]
        added = step.abs().amax(dim=-1)[0] > 1e-6
        assert torch.equal(added, image if i < 2 else torch.zeros_like(image))


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_packed_towers_refuse_what_no_one_tensor_holds(name):
    model = wrap(CASES[name].build())
    for item in ("q", "k", "v", "scores", "pattern"):
        with pytest.raises(SiteRefused, match="once per image"):
            model.run(CASES[name].inputs(), read=f"vision.layers.0.attn.{item}")


def test_base_models_without_a_head_have_the_same_sites():
    for name in ("llava", "qwen2-vl", "idefics3"):
        module, inputs = CASES[name].build(), CASES[name].inputs()
        inner = wrap(module.model)
        trace = inner.run(inputs, read=[at.image_tokens, at.projector, at.layers[1].attn.z, at.vision.layers[0].resid_mid])
        assert torch.equal(trace[at.image_tokens], wrap(module).run(inputs, read=at.image_tokens)[at.image_tokens])


def test_a_row_of_a_trace_has_no_images():
    bench = algebra.bench("llava")
    row = bench.run([at.embed, at.image_tokens, at.vision.layers[0].resid_pre]).row(0)
    assert at.embed in row
    assert at.image_tokens not in row
