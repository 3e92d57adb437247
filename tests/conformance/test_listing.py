"""`model.sites()` and `model.can()`: what a model offers, in a table and in words."""

import pytest
import torch
from torch import nn

import mainspring as ms
from conformance.zoo import CASES
from mainspring.edits import OPERATIONS
from mainspring.errors import EditError, SiteRefused
from mainspring.vocabulary import LAYER_SITES, TOP_SITES


def table(name):
    model = ms.wrap(CASES[name].build())
    return model, model.sites()


@pytest.mark.parametrize("name", ["llama", "gpt-neox", "qwen3-moe", "bamba", "t5", "clip", "vit", "qwen2-vl"])
def test_every_site_of_every_layer_is_listed_once(name):
    model, sites = table(name)
    listed = [(row.site.split("layers.")[0], row.name, layer) for row in sites for layer in row.layers]
    for stack in model.atlas.towers:
        prefix = f"{stack}." if stack else ""
        expected = [(prefix, word, layer) for word in LAYER_SITES for layer in range(model.atlas.depth(stack))]
        assert sorted(x for x in listed if x[0] == prefix) == sorted(expected)
    assert {row.name for row in sites if not row.layers and "." not in row.site} == set(TOP_SITES)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bamba", "t5", "gptj", "bert", "mixtral"])
def test_what_is_listed_is_what_a_run_gives(name):
    """Shapes are those of a run, refusals those of a request, aliases the same tensor."""
    model, sites = table(name)
    inputs = CASES[name].inputs()
    for row in sites:
        for layer in row.layers[:1] if row.layers else [None]:
            site = (
                row.site if layer is None else row.site.replace(row.site.split("layers.")[1].removesuffix(row.name), f"{layer}.")
            )
            if not row.offered:
                with pytest.raises(SiteRefused) as caught:
                    model.run(inputs, read=site)
                assert caught.value.reason == row.reason == model.can(site).reason
                continue
            value = model.run(inputs, read=site, until="end")[site]
            assert value.ndim == len(row.shape)
            assert all(size == n for size, n in zip(row.shape, value.shape, strict=True) if isinstance(size, int))
            if row.alias:
                other = site.removesuffix(row.name) + row.alias
                assert torch.equal(value, model.run(inputs, read=other, until="end")[other])


def test_layers_that_differ_are_listed_apart():
    _, sites = table("qwen3-moe")
    rows = {row.site: row for row in sites.where("mlp.post")}
    assert rows["layers.1.mlp.post"].shape == ("b", "p", 72)
    assert "mixture" in rows["layers.0:3:2.mlp.post"].reason
    assert [row.site for row in sites.where("resid_post")] == ["layers.0:3.resid_post"]


def test_filters():
    _, sites = table("llama")
    assert {row.name for row in sites.where("attn.*")} == {n for n in LAYER_SITES if n.startswith("attn.")}
    assert [row.site for row in sites.where("layers.*.attn.z")] == ["layers.0:3.attn.z"]
    assert all(row.offered for row in sites.offered)
    assert 0 < len(sites.offered) < len(sites)


def test_a_table_in_the_terminal_and_in_a_notebook():
    _, sites = table("llama")
    for text in (repr(sites), sites._repr_html_()):
        for words in ("layers.0:3.attn.z", "b p 4 20", "same tensor as attn.out", "layers.0:3.cross.*", "no cross-attention"):
            assert words in text
        assert "cross.pattern" not in text, "a part that no layer has takes one line"


def test_a_model_without_a_map_lists_its_modules():
    sites = ms.wrap(nn.Sequential(nn.Linear(2, 3), nn.Tanh())).sites()
    assert [row.site for row in sites] == [f'module["{i}"].{end}' for i in (0, 1) for end in ("input", "output")]


def test_can_answers_for_every_verb():
    model = ms.wrap(CASES["llama"].build())
    for verb in ("read", "write", "grad", *OPERATIONS):
        assert bool(model.can("layers.0.attn.scores", verb))
        assert bool(model.can("layers.0.resid_mid", verb)) is (verb != "mask")
    assert "only attention scores" in model.can("layers.*.mlp.out", "mask").reason
    assert "layers 0 to 2" in model.can("layers.7.mlp.out").reason
    assert "did you mean" in model.can("layers.0.mlp.uot").reason
    with pytest.raises(EditError, match="did you mean 'scale'"):
        model.can("embed", "scales")
