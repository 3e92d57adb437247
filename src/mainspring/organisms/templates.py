"""What inputs look like: a template is a row of slots, and each slot says which words may stand there.

A slot draws a word from `choices`; slots that share a `distinct` group never draw the same word; a slot
with `copy` repeats one of the slots that it names. Each slot has a role, which labels the token.
Templates are data, so that they travel with the program; they hold no code.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

__all__ = ["Draw", "Slot", "Template", "draw", "redraw"]


@dataclass(frozen=True)
class Slot:
    """One place in a template."""

    role: str
    choices: tuple[str, ...] = ()
    distinct: str | None = None
    copy: tuple[int, ...] = ()


@dataclass(frozen=True)
class Template:
    """A row of slots; a sequence drawn from it has one token per slot."""

    slots: tuple[Slot, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(slot.role for slot in self.slots)

    def spans(self, role: str) -> tuple[int, ...]:
        """The positions that have this role."""
        return tuple(i for i, slot in enumerate(self.slots) if slot.role == role)


@dataclass(frozen=True)
class Draw:
    """One input: its tokens, the template it came from, and which slot each copy repeats (-1: none)."""

    tokens: tuple[str, ...]
    template: Template
    copied: tuple[int, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        return self.template.roles


def draw(template: Template, random: Random) -> Draw:
    """A fresh input."""
    tokens: list[str] = []
    copied: list[int] = []
    for slot in template.slots:
        source = random.choice(slot.copy) if slot.copy else -1
        copied.append(source)
        tokens.append(tokens[source] if slot.copy else random.choice(_free(slot, template, tokens, -1)))
    return Draw(tuple(tokens), template, tuple(copied))


def redraw(given: Draw, random: Random) -> Iterator[Draw]:
    """The neighbours of an input, in random order: each changes one slot (and what copies it)."""
    order = list(range(len(given.tokens)))
    random.shuffle(order)
    for i in order:
        slot, tokens, copied = given.template.slots[i], list(given.tokens), list(given.copied)
        if slot.copy:
            others = [j for j in slot.copy if tokens[j] != tokens[i]]
            if not others:
                continue
            copied[i] = random.choice(others)
        else:
            free = [word for word in _free(slot, given.template, tokens, i) if word != tokens[i]]
            if not free:
                continue
            tokens[i] = random.choice(free)
        tokens = [tokens[copied[j]] if copied[j] >= 0 else word for j, word in enumerate(tokens)]
        yield Draw(tuple(tokens), given.template, tuple(copied))


def _free(slot: Slot, template: Template, tokens: list[str], at: int) -> list[str]:
    if slot.distinct is None:
        return list(slot.choices)
    rivals = enumerate(zip(template.slots, tokens, strict=False))
    taken = {word for i, (other, word) in rivals if i != at and other.distinct == slot.distinct}
    return [word for word in slot.choices if word not in taken]
