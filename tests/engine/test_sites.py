"""A site is a value: text and builder agree, it round-trips, hashes and narrows, and says what is wrong with a wrong one."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mainspring import at
from mainspring.errors import LayerOutOfRange, PositionError, SelectorError, SiteError, UnknownSite
from mainspring.selectors import PerRow, Slice, Span, as_index, format_index, parse_index, span
from mainspring.sites import Site, parse_site
from mainspring.vocabulary import LAYER_SITES, SELECTORS, STACKS, TOP_SITES

ints = st.integers(-50, 50)
slices = st.builds(Slice, st.none() | ints, st.none() | ints, st.none() | ints.filter(bool))
many = st.lists(ints, min_size=1, max_size=4, unique=True).map(tuple)
letters = st.sampled_from('ab_"\\ ()[]=,.*:é\n0')
words = st.text(letters, min_size=1, max_size=8)
spans = st.builds(Span, words, st.none() | ints)
rowwise = st.lists(ints, min_size=1, max_size=4).map(lambda x: PerRow(tuple(x)))
indices = st.one_of(ints, slices, many, spans, rowwise)
paths = st.lists(st.text(letters.filter(lambda c: c != "."), min_size=1, max_size=6), max_size=3).map(".".join)


@st.composite
def sites(draw):
    kind = draw(st.sampled_from(["layer", "top", "module"]))
    if kind == "module":
        site = Site(f"{draw(paths)}.{draw(st.sampled_from(['input', 'output']))}", stack="module")
    else:
        stack = draw(st.sampled_from(["", *STACKS]))
        if kind == "layer":
            site = Site(draw(st.sampled_from(sorted(LAYER_SITES))), draw(st.one_of(ints, slices, many)), stack)
        else:
            site = Site(draw(st.sampled_from(sorted(TOP_SITES))), None, stack)
    keys = draw(st.lists(st.sampled_from(SELECTORS), unique=True, max_size=3))
    return site(**{key: draw(indices) for key in keys})


@given(sites())
def test_text_gives_back_the_same_value(site):
    again = parse_site(str(site))
    assert again == site
    assert hash(again) == hash(site)
    assert str(again) == str(site)


@given(sites())
def test_repr_is_a_python_expression_and_pickle_keeps_the_value(site):
    assert eval(repr(site), {"at": at}) == site
    assert pickle.loads(pickle.dumps(site)) == site


@given(indices)
def test_index_round_trip(index):
    assert parse_index(format_index(index)) == index
    assert as_index(index, "pos") == index


@given(sites(), sites())
def test_equal_exactly_when_the_text_is(one, other):
    assert (one == other) == (str(one) == str(other))


@given(st.sampled_from(sorted(LAYER_SITES)), ints, st.permutations([("head", 2), ("pos", -1), ("dim", 3)]))
def test_builder_equals_parser_whatever_the_order_of_selectors(name, layer, chosen):
    built = at.layers[layer]
    for word in name.split("."):
        built = getattr(built, word)
    text = f"layers.{layer}.{name}(" + ", ".join(f"{k}={v}" for k, v in chosen) + ")"
    assert built(**dict(chosen)) == parse_site(text)
    assert hash(built(**dict(chosen))) == hash(parse_site(text))


@pytest.mark.parametrize("name", sorted(TOP_SITES))
def test_builder_equals_parser_for_top_sites(name):
    assert getattr(at, name) == parse_site(name)
    assert getattr(at.vision, name) == parse_site(f"vision.{name}")


def test_the_forms_a_user_may_write_for_an_index():
    z = at.layers[0].attn.z
    assert z(pos=slice(1, 4)) == parse_site("layers.0.attn.z(pos=1:4)")
    assert z(pos=[0, 2]) == z(pos=(0, 2)) == parse_site("layers.0.attn.z(pos=[0,2])")
    assert z(pos=range(2)) == z(pos=[0, 1])
    assert z(pos=torch.tensor(3)) == z(pos=3)
    assert z(pos=torch.tensor([4, 6])) == parse_site("layers.0.attn.z(pos=rows(4,6))") != z(pos=[4, 6])
    assert z(pos=span("subject").last) == parse_site('layers.0.attn.z(pos=span("subject").last)')
    assert z(pos="-1") == z(pos=-1)
    assert at.layers[:].resid_post == parse_site("layers.*.resid_post") == parse_site("layers.:.resid_post")
    assert at.layers[1:3].resid_post == parse_site("layers.1:3.resid_post")
    assert at.layers[[0, 2]].resid_post == parse_site("layers.[0,2].resid_post")


def test_narrowing_replaces_and_removes():
    z = at.layers[0].attn.z(head=1, pos=2)
    assert z(head=3) == at.layers[0].attn.z(head=3, pos=2)
    assert z(head=None) == at.layers[0].attn.z(pos=2)
    assert z.bare == at.layers[0].attn.z
    assert z.axes == ("batch", "pos", "head", "head_dim")


def test_sites_are_immutable():
    with pytest.raises(AttributeError):
        at.embed.name = "logits"


@given(st.integers(1, 12), slices)
def test_wildcards_expand_as_python_slices(depth, chosen):
    expected = [*range(depth)][slice(chosen.start, chosen.stop, chosen.step)]
    site = Site("resid_post", chosen)
    if not expected:
        with pytest.raises(LayerOutOfRange):
            site.expand(depth)
    else:
        assert [s.layers for s in site.expand(depth)] == expected


def test_negative_layers_count_from_the_end_and_lists_keep_their_order():
    assert at.layers[-1].resid_post.expand(4) == (at.layers[3].resid_post,)
    assert [s.layers for s in at.layers[[2, -4]].resid_post.expand(4)] == [2, 0]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("layers.0.attn.zz", UnknownSite, "attn.z"),
        ("resid_post", UnknownSite, "no site resid_post"),
        ("tower.layers.0.resid_pre", UnknownSite, "stacks are"),
        ("layers.0.attn.z(haed=1)", SelectorError, "'head'"),
        ("layers.0.attn.z(head=1,head=2)", SelectorError, "twice"),
        ("layers.0.attn.z(head=x)", SelectorError, "cannot read head='x'"),
        ("layers.0.attn.z(head=[1,1])", SelectorError, "twice"),
        ("layers.0.attn.z(pos=::0)", SelectorError, "zero"),
        ("layers.0.attn.z(head=1", SiteError, "cannot read the site"),
        ('layers.span("x").resid_pre', SiteError, "cannot read the site"),
    ],
)
def test_wrong_text_says_what_is_wrong(text, error, says):
    with pytest.raises(error) as caught:
        parse_site(text)
    assert says in str(caught.value)


def test_wrong_builders_say_what_is_wrong():
    with pytest.raises(UnknownSite, match="did you mean"):
        at.layers[0].resid_pst  # noqa: B018
    with pytest.raises(SelectorError, match="selects nothing"):
        at.embed(pos=[])
    with pytest.raises(SelectorError, match="not an index"):
        at.embed(pos=1.5)
    with pytest.raises(SelectorError, match="not an index"):
        at.embed(pos=True)
    with pytest.raises(PositionError, match="non-empty"):
        span("")
    with pytest.raises(SelectorError, match="not a layer"):
        at.layers[span("x")].resid_pre  # noqa: B018
    with pytest.raises(SiteError):
        at.layers[0]["resid_pre"]
