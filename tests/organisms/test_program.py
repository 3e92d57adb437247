import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.organisms import (
    PROGRAMS,
    Aggregate,
    Output,
    Previous,
    Program,
    Select,
    Slot,
    Template,
    Token,
    edited,
    merge,
    pair_diff,
)
from mainspring.organisms.catalogue import binding, greater_than, ioi, recall, select_add, two_hop
from mainspring.organisms.variables import evaluate


def words(text: str) -> list[str]:
    return ["<bos>", *text.split()]


def test_recall_by_hand():
    program, tokens = recall(), words("+ a 3 b 5 a")
    values = program.run(tokens)
    assert values["previous"] == ("<bos>", "<bos>", "+", "a", "3", "b", "5")
    assert values["mode"] == ("<bos>", "+", "+", "+", "+", "+", "+")
    assert values["found"] == ("<bos>",) * 6 + ("3",)
    assert values["result"] == ("none",) * 6 + ("6",)
    assert program.answer(tokens) == {"6"}
    assert program.answer(words("= a 3 b 5 b")) == {"5"}


def test_interventions_by_hand():
    program, tokens = recall(), words("+ a 3 b 5 a")
    assert program.answer(tokens, do={"mode": "="}) == {"3"}
    assert program.answer(tokens, do={"found": "7"}) == {"2"}
    assert program.answer(tokens, take={"found": words("= a 1 b 4 b")}) == {"7"}
    assert program.answer(tokens, take={"mode": words("= a 1 b 4 b")}) == {"3"}
    # With the keys of another input, "a" stands before the second digit.
    assert program.answer(tokens, take={"previous": words("= b 1 a 4 b")}) == {"0"}
    assert program.answer(tokens, do={"found": "<bos>"}) == frozenset()
    with pytest.raises(ValueError, match="cannot set"):
        program.run(tokens, do={"found": "nonsense"})


def test_the_others_by_hand():
    assert select_add().answer(words("+ 4 1 7 2 p1")) == {"4"}
    assert select_add().answer(words("= 4 1 7 2 p3")) == {"2"}
    assert greater_than().answer(words("the war lasted from 17c 08 to 17c")) == {"09", "10", "11"}
    assert greater_than().answer(words("the war lasted from 17c 11 to 17c")) == frozenset()
    assert binding().answer(words("ann has key . bob has map . who so bob")) == {"map"}
    facts = two_hop()
    assert facts.run(words("the of s3 has r1"))["bridge"][-1] == "b4"
    assert facts.answer(words("the of s3 has r1")) == {f"o{(3 * 4 + 4 + 4) % 12}"}


def test_ioi_by_hand():
    program, tokens = ioi(), words("then ann and bob met ; bob gave it to")
    values = program.run(tokens)
    assert values["duplicate"][7] == "@4"
    assert values["repeated"] == ("no",) * 7 + ("yes",) + ("no",) * 3
    assert values["inhibited"][-1] == "bob"
    assert program.votes(values) == {"ann": pytest.approx(0.7)}
    assert program.answer(tokens, do={"inhibited": "ann"}) == {"bob"}
    # The negative head alone lowers a logit and changes no answer.
    assert program.answer(tokens, do={"negative": "bob"}) == {"ann"}


def test_binding_follows_the_pointer():
    program, tokens = binding(), words("ann has key . bob has map . who so bob")
    swapped = words("bob has key . ann has map . who so bob")
    assert program.answer(tokens, take={"pointer": swapped}) == {"key"}


def test_aggregate_by_hand():
    program = Program(
        name="share",
        words=("a", "b"),
        variables=(("token", Token()), ("many", Aggregate("token", ("a",), (0.3, 0.6), ("few", "some", "most")))),
        outputs=(Output("many", (("most", ("a",)), ("few", ("b",)))),),
        templates=(Template((Slot("bos", ("<bos>",)), Slot("word", ("a", "b")))),),
    )
    assert program.run(words("a a b b"))["many"] == ("few", "some", "most", "some", "some")


def test_merged_programs_answer_after_their_own_word():
    merged = merge(recall(), greater_than())
    assert merged.answer(["<recall>", *["+", "a", "3", "b", "5", "a"]]) == {"6"}
    assert merged.answer(["<greater-than>", *["the", "war", "ran", "from", "17c", "09", "to", "17c"]]) == {"10", "11"}
    with pytest.raises(ValueError, match="one can be merged"):
        merge(recall(), ioi())


def test_edited_twin():
    base, tuned = pair_diff()
    assert base.domains == tuned.domains
    changed = {row for row, _ in set(base.graph["first_hop"].rows) ^ set(tuned.graph["first_hop"].rows)}
    assert changed == {("s2",), ("s7",)}
    with pytest.raises(ValueError, match="no table"):
        edited(base, "bridge", {})


@pytest.mark.parametrize("name", PROGRAMS)
def test_json_round_trip(name: str):
    program = PROGRAMS[name].program()
    again = Program.from_data(json.loads(json.dumps(program.to_data())))
    assert again == program
    assert again.domains == program.domains


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_laws(name: str, seed: int):
    program = PROGRAMS[name].program()
    first, second = program.sample(2, seed)
    values = program.run(first.tokens)
    assert program.answer(first.tokens)
    assert all(set(row) <= set(program.domains[variable]) for variable, row in values.items())
    assert first.roles == first.template.roles
    # "unique" is kept: breaking ties either way gives the same values.
    for variable, spec in program.variables:
        if isinstance(spec, Select) and spec.which == "unique":
            for which in ("first", "latest"):
                assert evaluate(replace(spec, which=which), first.tokens, values) == values[variable]
    # Taking a variable from the same input, or setting it to what it is, changes nothing.
    for variable in program.graph:
        assert program.run(first.tokens, take={variable: first.tokens}) == values
        assert program.run(first.tokens, do={variable: values[variable]}) == values
    # Taking everything that is read out from another input gives the other input's answer.
    outputs = {output.variable: second.tokens for output in program.outputs}
    if len(first.tokens) == len(second.tokens):
        assert program.answer(first.tokens, take=outputs) == program.answer(second.tokens)


@pytest.mark.parametrize(
    ("program", "variable"),
    [(recall(), "mode"), (recall(), "found"), (select_add(), "selected"), (two_hop(), "bridge"), (ioi(), "inhibited")],
    ids=lambda value: getattr(value, "name", value),
)
def test_pairs_differ_in_the_chosen_variable(program: Program, variable: str):
    for pair in program.pairs(variable, 12, seed=3):
        clean, other = program.run(pair.clean.tokens), program.run(pair.other.tokens)
        assert clean[variable][-1] != other[variable][-1]
        assert pair.clean.template is pair.other.template
        assert {name for name in clean if clean[name][-1] != other[name][-1]} == set(pair.changed)
        roles = {role for role, a, b in zip(pair.clean.roles, pair.clean.tokens, pair.other.tokens, strict=True) if a != b}
        if (program.name, variable) == ("recall", "mode"):
            assert roles == {"mode"}
            assert pair.changed == ("mode", "result")
    assert pair.clean.template.spans("bos") == (0,)


def test_errors():
    template = Template((Slot("bos", ("<bos>",)),))
    with pytest.raises(ValueError, match="does not stand before"):
        Program("x", (), (("p", Previous("token")), ("token", Token())), (), (template,))
    with pytest.raises(ValueError, match="two variables"):
        Program("x", (), (("t", Token()), ("t", Token())), (), (template,))
    with pytest.raises(ValueError, match="an output reads"):
        Program("x", (), (("t", Token()),), (Output("u", ()),), (template,))
    with pytest.raises(ValueError, match="unknown words"):
        Program("x", (), (("t", Token()),), (), (Template((Slot("bos", ("hello",)),)),))
    with pytest.raises(ValueError, match="no kind of variable"):
        Program.from_data({**recall().to_data(), "variables": [["t", {"kind": "Magic"}]]})
