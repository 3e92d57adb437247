"""Facts of hidden groups: the tables are groups, sequences say true products in fresh symbols, and a held-out symbol is no identity."""

import pytest
import torch

from mainspring.organisms.facts.build import build_tokenizer
from mainspring.tasks.algebra import GROUPS, HELD, SYMBOLS, WORDS, WORLDS, draw, group_table


def drawn(seed, count=32, facts=16, **given):
    return draw(count, facts, torch.Generator().manual_seed(seed), **given)


@pytest.mark.parametrize("name", GROUPS)
def test_every_table_is_a_group(name):
    table = group_table(name)
    every = range(len(table))
    assert table[0] == [row[0] for row in table] == list(every)
    assert all(sorted(row) == list(every) for row in table) and all(
        sorted(column) == list(every) for column in zip(*table, strict=True)
    )
    assert all(table[table[a][b]][c] == table[a][table[b][c]] for a in every for b in every for c in every)
    assert (table == [list(column) for column in zip(*table, strict=True)]) == (name != "D3")
    roots = {"C3": 1, "C4": 2, "V4": 4, "C5": 1, "C6": 2, "D3": 4}
    assert sum(table[a][a] == 0 for a in every) == roots[name]  # elements whose square is the identity


def test_worlds_fit_and_their_chances_are_those_of_the_walk():
    assert sum(world.chance for world in WORLDS) == pytest.approx(1)
    assert max(world.size for world in WORLDS) == len(SYMBOLS) and {len(world.groups) for world in WORLDS} == {1, 2}
    alone = next(world for world in WORLDS if world.groups == ("C6",))
    assert alone.chance == pytest.approx(1 / 6)  # no second group fits beside six elements
    assert next(world for world in WORLDS if world.groups == ("C5", "C3")).chance == pytest.approx(0.7 / 6)
    worlds = drawn(0, 4000, 1).world.bincount(minlength=len(WORLDS)) / 4000
    plain = torch.tensor([world.chance for world in WORLDS])
    held = torch.tensor([world.chance * (1 - len(world.groups) / len(SYMBOLS)) for world in WORLDS])
    assert float((worlds - held / held.sum()).abs().max()) < 0.03 and float((plain - held / held.sum()).abs().max()) < 0.03


def test_facts_are_true_products_in_the_symbols_of_their_row():
    given = drawn(1)
    for row in range(len(given)):
        world, names = WORLDS[int(given.world[row])], given.symbol[row].tolist()
        assert sorted(names) == list(range(len(SYMBOLS)))
        for x, y, z in given.facts[row].tolist():
            a, b, c = (names.index(symbol) for symbol in (x, y, z))
            start, name = next((s, g) for s, g in zip(reversed(world.starts), reversed(world.groups), strict=True) if s <= a)
            assert group_table(name)[a - start][b - start] == c - start
        assert all(given.products(row)[x, y] == z for x, y, z in given.facts[row].tolist())
        for e in given.identities(row):
            assert (
                given.products(row)[e, e] == e and len([1 for (a, b), z in given.products(row).items() if b == e and z == a]) >= 3
            )


def test_symbols_mean_something_else_in_every_sequence():
    given = drawn(2, 64)
    assert len({tuple(row) for row in given.symbol.tolist()}) > 60


@pytest.mark.parametrize("held", [False, True])
def test_the_held_symbol_is_an_identity_in_held_out_sequences_alone(held):
    given = drawn(3, 64, held=held)
    assert all((HELD in given.identities(row)) == held for row in range(64))
    assert bool((given.facts == HELD).any())


def test_groups_can_be_chosen():
    assert {name for w in drawn(4, 64, groups=("C3", "C4")).world for name in WORLDS[int(w)].groups} == {"C3", "C4"}
    assert all(WORLDS[int(w)].abelian for w in drawn(4, 64, abelian=True).world)
    assert not all(WORLDS[int(w)].abelian for w in drawn(4, 64).world)


def test_a_sequence_as_text_and_as_tokens():
    given = drawn(5, 2, 3)
    told = [WORDS[i] for i in given.ids[0].tolist()]
    x, y, z = (SYMBOLS[k] for k in given.facts[0, 1].tolist())
    assert told[0] == "<bos>" and told[6:11] == [",", x, y, "=", z]
    assert build_tokenizer(WORDS)(" ".join(told[1:]))["input_ids"] == given.ids[0].tolist()
    assert all(told[4 + 5 * k] == "=" for k in range(3))
    assert torch.equal(given.ids, drawn(5, 2, 3).ids)
