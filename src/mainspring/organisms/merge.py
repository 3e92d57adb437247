"""Several programs in one model, told apart by the word that opens the sequence.

    <recall> + a 3 b 5 a          answers by the first program
    <greater-than> the war ...    answers by the second

All circuits run on every input; a chain of gates lets the right one answer. Token and Position are shared, every other
variable is called PROGRAM.VARIABLE.

What it does not do: let programs share variables, or merge programs with several outputs.
"""

from dataclasses import replace

from mainspring.organisms.program import Program
from mainspring.organisms.templates import Slot, Template
from mainspring.organisms.variables import (
    Aggregate,
    Gate,
    Output,
    Position,
    Previous,
    Select,
    Table,
    Token,
    Variable,
)

__all__ = ["merge"]


def merge(*programs: Program) -> Program:
    """One program that does what each of these does after its own opening word."""
    if len(programs) < 2 or len({program.name for program in programs}) < len(programs):
        raise ValueError("merge needs two programs or more, with different names")
    sinks = tuple(f"<{program.name}>" for program in programs)
    every = tuple(("*", sink) for sink in sinks)
    variables: list[tuple[str, Variable]] = [("token", Token())]
    if any(isinstance(v, Position) for program in programs for _, v in program.variables):
        variables.append(("position", Position()))
    variables.append(("opening", Select(key="token", value="token", match=every)))
    answers: dict[str, tuple[str, ...]] = {}
    gated = ""
    for program, sink in zip(programs, sinks, strict=True):
        names = {name: _renamed(name, variable, program) for name, variable in program.variables}
        variables += [
            (names[name], _rewired(variable, names))
            for name, variable in program.variables
            if not isinstance(variable, Token | Position)
        ]
        if len(program.outputs) != 1:
            raise ValueError(f"{program.name} has {len(program.outputs)} outputs; only programs with one can be merged")
        (output,) = program.outputs
        for value, tokens in output.tokens:
            if answers.setdefault(value, tokens) != tokens:
                raise ValueError(f"{program.name} answers {value!r} with other tokens than a program before it")
        if gated:
            gate = Gate("opening", (sink,), names[output.variable], gated)
            variables.append((f"{program.name}.gate", gate))
            gated = f"{program.name}.gate"
        else:
            gated = names[output.variable]
    return Program(
        name="+".join(program.name for program in programs),
        words=tuple(dict.fromkeys(word for program in programs for word in program.words)),
        variables=tuple(variables),
        outputs=(Output(gated, tuple(answers.items())),),
        templates=tuple(
            Template((Slot("bos", (sink,)), *template.slots[1:]))
            for program, sink in zip(programs, sinks, strict=True)
            for template in program.templates
        ),
        sinks=sinks,
        spare=max(program.spare for program in programs),
    )


def _renamed(name: str, variable: Variable, program: Program) -> str:
    match variable:
        case Token():
            return "token"
        case Position():
            return "position"
        case _:
            return f"{program.name}.{name}"


def _rewired(variable: Variable, names: dict[str, str]) -> Variable:
    match variable:
        case Previous(source=source) | Aggregate(source=source):
            return replace(variable, source=names[source])
        case Select(query=query, key=key, value=value, which=which):
            # On the inputs of the other programs a match need not be unique.
            tie = "latest" if which == "unique" else which
            wired = names[query] if query else None
            return replace(variable, query=wired, key=names[key], value=names[value], which=tie)
        case Table(inputs=inputs):
            return replace(variable, inputs=tuple(names[name] for name in inputs))
        case Gate(condition=condition, then=then, otherwise=otherwise):
            return replace(variable, condition=names[condition], then=names[then], otherwise=names[otherwise])
        case _:
            return variable
