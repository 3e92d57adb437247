"""Windows against brute force: python loops over rows, positions and heads."""

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mainspring.errors import PositionError, SelectorError
from mainspring.rows import Rows
from mainspring.selectors import PerRow, Slice, Span
from mainspring.windows import compile_window

AXES = ("batch", "pos", "head", "head_dim")
HEADS, DIM = 3, 2


@st.composite
def layouts(draw):
    """Ragged rows, padded on the left, the right or anywhere, with one span in each."""
    batch = draw(st.integers(1, 3))
    lengths = [draw(st.integers(1, 5)) for _ in range(batch)]
    width = max(lengths) + draw(st.integers(0, 1))
    side = draw(st.sampled_from(["left", "right", "both"]))
    offsets = [{"left": width - n, "right": 0}.get(side, draw(st.integers(0, width - n))) for n in lengths]
    span = []
    for n in lengths:
        start = draw(st.integers(0, n - 1))
        span.append((start, draw(st.integers(start + 1, n))))
    return Rows(tuple(lengths), tuple(offsets), width, {"s": tuple(span)})


def some(draw, size):
    """An index into an axis of known size."""
    one = st.integers(-size, size - 1)
    many = st.lists(one, min_size=1, max_size=size, unique_by=lambda i: i % size).map(tuple)
    edge = st.none() | st.integers(-size - 1, size + 1)
    return draw(st.one_of(one, many, st.builds(Slice, edge, edge, st.none() | st.sampled_from([1, 2, -1]))))


@st.composite
def selections(draw):
    layout = draw(layouts())
    shortest = min(layout.lengths)
    chosen = {}
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["index", "rows", "span", "token"]))
        if kind == "index":
            chosen["pos"] = some(draw, shortest)
        elif kind == "rows":
            chosen["pos"] = PerRow(tuple(draw(st.integers(-n, n - 1)) for n in layout.lengths))
        else:
            chosen["pos"] = Span("s", None if kind == "span" else draw(st.sampled_from([0, -1])))
    for key, size in (("row", layout.batch), ("head", HEADS), ("dim", DIM)):
        if draw(st.booleans()):
            chosen[key] = some(draw, size)
    return layout, tuple(chosen.items())


def picked(index, size, row, layout):
    """(the chosen indices, whether the axis goes) on one axis; positions count from the row's first real token."""
    if isinstance(index, PerRow):
        index = index.indices[row]
    if isinstance(index, Span):
        first, last = layout.spans["s"][row]
        inside = list(range(first, last))
        return (inside, False) if index.part is None else ([inside[index.part]], True)
    if index is None:
        return list(range(size)), False
    if isinstance(index, Slice):
        return list(range(size))[slice(index.start, index.stop, index.step)], False
    return [i % size for i in ([index] if isinstance(index, int) else index)], isinstance(index, int)


def brute(layout, select):
    """Per chosen row the coordinates of every selected entry, nested by axis, and which axes go."""
    chosen = dict(select)
    rows, drop_row = picked(chosen.get("row"), layout.batch, None, layout)
    out = []
    for row in rows:
        if "pos" in chosen:
            inside, drop_pos = picked(chosen["pos"], layout.lengths[row], row, layout)
            columns = [layout.offsets[row] + p for p in inside]
        else:
            columns, drop_pos = list(range(layout.width)), False
        heads, drop_head = picked(chosen.get("head"), HEADS, row, layout)
        dims, drop_dim = picked(chosen.get("dim"), DIM, row, layout)
        out.append(([row], columns, heads, dims))
    return out, (drop_row, drop_pos, drop_head, drop_dim) if out else None


def compiled(layout, select):
    shape = (layout.batch, layout.width, HEADS, DIM)
    return compile_window(select, AXES, shape, {"pos": layout})


@settings(max_examples=300, deadline=None)
@given(selections())
def test_get_and_put_equal_python_loops(case):
    layout, select = case
    found, drops = brute(layout, select) if brute(layout, select)[0] else ([], None)
    for key, index in select:
        if key != "pos" and isinstance(index, Slice):
            size = {"row": layout.batch, "head": HEADS, "dim": DIM}[key]
            assume(len(range(size)[slice(index.start, index.stop, index.step)]))  # an empty slice there is refused: see below
    window = compiled(layout, select)
    value = torch.arange(layout.batch * layout.width * HEADS * DIM, dtype=torch.float32).reshape(
        layout.batch, layout.width, HEADS, DIM
    )
    before = value.clone()
    counts = {len(columns) for _, columns, _, _ in found}
    if counts == {0}:
        assert window.empty
        return
    assert not window.empty
    assert window.ragged == (len(counts) > 1)
    if len(counts) == 1:
        expected = torch.stack(
            [
                torch.tensor([[[value[row[0], c, h, d] for d in dims] for h in heads] for c in columns])
                for row, columns, heads, dims in found
            ]
        )
        for axis in reversed([i for i, gone in enumerate(drops) if gone]):
            expected = expected.squeeze(axis)
        got = window.get(value)
        assert got.shape == expected.shape == window.shape
        assert torch.equal(got, expected)
        fresh = -1.0 - torch.arange(expected.numel(), dtype=torch.float32).reshape(expected.shape)
        wide, flat = value.clone(), iter(fresh.flatten().tolist())
        for row, columns, heads, dims in found:
            for c, h, d in itertools.product(columns, heads, dims):
                wide[row[0], c, h, d] = next(flat)
        assert torch.equal(window.put(value, fresh), wide)
    hit = value.clone()
    for row, columns, heads, dims in found:
        for c, h, d in itertools.product(columns, heads, dims):
            hit[row[0], c, h, d] = -7.0
    assert torch.equal(window.put(value, torch.tensor(-7.0)), hit)
    assert torch.equal(value, before), "put changed the tensor it was given"


def test_an_empty_slice_of_an_axis_is_refused():
    layout = Rows.full(2, 3)
    for key in ("row", "head", "dim"):
        with pytest.raises(SelectorError, match="selects nothing"):
            compiled(layout, ((key, Slice(5, 6)),))


@given(layouts(), st.integers(-8, 8))
def test_a_position_beyond_the_text_of_any_row_is_refused(layout, position):
    valid = all(-n <= position < n for n in layout.lengths)
    if valid:
        assert compiled(layout, (("pos", position),)).shape == (layout.batch, HEADS, DIM)
    else:
        with pytest.raises(PositionError, match="beyond the text of row"):
            compiled(layout, (("pos", position),))


@given(layouts(), st.integers(-4, 4), st.integers(-4, 4))
def test_query_and_key_axes_have_their_own_positions(layout, query, key):
    shortest = min(layout.lengths)
    assume(-shortest <= query < shortest and -shortest <= key < shortest)
    value = torch.arange(layout.batch * 2 * layout.width**2, dtype=torch.float32).reshape(
        layout.batch, 2, layout.width, layout.width
    )
    axes = ("batch", "head", "query", "key")
    window = compile_window((("query", query), ("key", key)), axes, tuple(value.shape), {"query": layout, "key": layout})
    for row in range(layout.batch):
        q, k = (layout.offsets[row] + i % layout.lengths[row] for i in (query, key))
        assert torch.equal(window.get(value)[row], value[row, :, q, k])


@given(layouts())
def test_rows_from_a_mask(layout):
    mask = torch.zeros(layout.batch, layout.width, dtype=torch.long)
    for row, (offset, length) in enumerate(zip(layout.offsets, layout.lengths, strict=True)):
        for column in range(offset, offset + length):
            mask[row, column] = 1
    found = Rows.of_mask(mask)
    assert (found.lengths, found.offsets, found.width) == (layout.lengths, layout.offsets, layout.width)
    assert torch.equal(found.mask(), mask.bool())


def test_a_row_without_tokens_is_refused():
    with pytest.raises(PositionError, match="row 1"):
        Rows.of_mask(torch.tensor([[1, 1], [0, 0]]))


def test_two_axes_that_differ_by_row_are_paired_not_crossed():
    """pos= per row and head= per row pick one entry in each row."""
    layout = Rows((3, 2), (0, 1), 3)
    value = torch.arange(2 * 3 * HEADS * DIM, dtype=torch.float32).reshape(2, 3, HEADS, DIM)
    window = compile_window((("pos", PerRow((2, 0))), ("head", PerRow((1, 2)))), AXES, tuple(value.shape), {"pos": layout})
    assert torch.equal(window.get(value), torch.stack([value[0, 2, 1], value[1, 1, 2]]))


class TestGeneration:
    """In a generation a window is one of many: positions beyond it are not errors, and columns are counted from its start."""

    layout = Rows((3, 2), (0, 1), 3)

    @pytest.mark.parametrize("step", [0, 1, 2, 3])
    def test_decoding_columns(self, step):
        """Column 2 + step holds step `step`: its output predicts generated token `step`."""
        columns = 3 if step == 0 else 1
        start = 0 if step == 0 else 2 + step
        value = torch.arange(2 * columns, dtype=torch.float32).reshape(2, columns, 1)

        def window(**select):
            return compile_window(
                tuple(select.items()), ("batch", "pos", "dim"), tuple(value.shape), {"pos": self.layout}, start=start, final=False
            )

        for asked in range(4):
            one = window(step=asked)
            assert one.empty == (asked != step)
            if asked == step:
                assert torch.equal(one.get(value), value[:, -1])
        last_prompt = window(pos=-1)
        assert last_prompt.empty == (step != 0)
        later = window(pos=PerRow((4, 3)))  # both rows reach their column 4 at step 2
        assert later.empty == (step != 2)
        assert window(pos=Slice(3, None)).empty == (step == 0)
        assert not window(pos=Slice(None, None)).empty

    def test_steps_count_from_zero(self):
        with pytest.raises(PositionError, match="from 0"):
            compile_window((("step", -1),), ("batch", "pos", "dim"), (2, 3, 1), {"pos": self.layout}, final=False)
