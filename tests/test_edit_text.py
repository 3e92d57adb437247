"""Edits read from text, as the command line takes them."""

import pytest
import torch

from mainspring import at, errors
from mainspring.edit_text import parse_edit
from mainspring.rows import Rows
from mainspring.trace import Trace, Values

GOOD = {
    "layers.2.mlp.out(pos=-1).scale(0)": at.layers[2].mlp.out(pos=-1).scale(0.0),
    "  embed.set( 1.5 ) ": at.embed.set(1.5),
    "layers.*.resid_post.add(-2e-1)": at.layers[:].resid_post.add(-0.2),
    "layers.[0,2].attn.z(head=[1,3],pos=0:2).ablate(mean)": at.layers[[0, 2]].attn.z(head=[1, 3], pos=slice(0, 2)).ablate("mean"),
    "layers.0.attn.z(head=3).ablate()": at.layers[0].attn.z(head=3).ablate("zero"),
    "layers.0.attn.z.ablate('resample')": at.layers[0].attn.z.ablate("resample"),
    'layers.0.attn.z.ablate("zero")': at.layers[0].attn.z.ablate("zero"),
    "layers.1.attn.scores(query=-1,key=0).mask()": at.layers[1].attn.scores(query=-1, key=0).mask(),
    "embed.clamp(-1, 2.5)": at.embed.clamp(-1, 2.5),
    'module["a.b(c)"].output.scale(2)': at.module["a.b(c)"].output.scale(2.0),
    'module["a.scale(3)"].input.scale(2)': at.module["a.scale(3)"].input.scale(2.0),
    "encoder.layers.0.resid_post(step=1).scale(2)": at.encoder.layers[0].resid_post(step=1).scale(2.0),
}


@pytest.mark.parametrize("text", GOOD)
def test_what_can_be_written(text):
    assert parse_edit(text) == GOOD[text]


def test_a_patch_runs_its_prompt():
    asked = []
    trace = Trace(Values({at.layers[1].resid_post: torch.ones(1, 2, 3)}, {"": Rows.full(1, 2)}, {"": 2}))

    def run(prompt, site):
        asked.append((prompt, site))
        return trace

    edit = parse_edit('layers.1.resid_post(pos=-1).patch("a (b) \\"c\\" .patch(1)")', run)
    assert asked == [('a (b) "c" .patch(1)', "layers.1.resid_post")]
    assert edit == at.layers[1].resid_post(pos=-1).patch(trace)


BAD = {
    "": "examples",
    "embed": "examples",
    "embed.scale": "examples",
    "embed.scale(1": "examples",
    "embed.explode(1)": "examples",
    "embed.apply(print)": "examples",
    ".scale(1)": "examples",
    "embed.scale()": "one number",
    "embed.scale(1,2)": "one number",
    "embed.scale(two)": "not 'two'",
    "embed.scale(,)": "not ''",
    "embed.scale(nan)": "nan",
    "embed.add(inf)": "inf",
    "embed.clamp(1)": "two numbers",
    "embed.clamp(2,1)": "low is above high",
    "embed.ablate(half)": "half",
    "embed.mask()": "only attention",
    "layers.0.attn.scores.mask(3)": "takes nothing",
    "embed.patch()": "double quotes",
    "embed.patch(hello)": "double quotes",
    "embed.patch('hello')": "double quotes",
    "embed.patch(3)": "double quotes",
    'embed.patch("hello", 3)': "double quotes",
    'embed.patch("hel\\lo")': "double quotes",
}


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_read_says_what_can(text):
    with pytest.raises(errors.EditError, match=BAD[text]):
        parse_edit(text, lambda prompt, site: pytest.fail("nothing may run"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("layers.0.soul.scale(1)", errors.UnknownSite),
        ("embed(poss=1).scale(1)", errors.SelectorError),
        ("embed(pos=).scale(1)", errors.SiteError),
        ("layers.x.resid_post.scale(1)", errors.SiteError),
    ],
)
def test_a_bad_site_is_a_site_error(text, error):
    with pytest.raises(error):
        parse_edit(text)


def test_a_patch_needs_a_model():
    with pytest.raises(errors.EditError, match="patch"):
        parse_edit('embed.patch("hello")')
