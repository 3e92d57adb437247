"""Texts that a tokenizer of whole words cannot read: refused with words that it can.

Organisms speak a language of some dozens of words. A tokenizer of such a language without a token for what is not in it raises a bare
`Exception` at the first word that it does not have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mainspring.errors import UnknownWord

__all__ = ["is_unknown_word", "known_words", "whole_words"]


@contextmanager
def whole_words(tokenizer: Any) -> Iterator[None]:
    """Texts are read inside; one with a word that the tokenizer does not have raises `UnknownWord`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UnknownWord) or not is_unknown_word(error):
            raise
        raise UnknownWord(f"a word of this text is none of those that the tokenizer knows: {known_words(tokenizer)}") from None


def is_unknown_word(error: BaseException) -> bool:
    """Whether a tokenizer refused a word; it has no class of its own for that."""
    return isinstance(error, UnknownWord) or "Missing [UNK] token" in str(error)


def known_words(tokenizer: Any, most: int = 60) -> str:
    """The first words of a tokenizer, without its special tokens."""
    numbers = tokenizer.get_vocab()
    words = sorted((word for word in numbers if word not in tokenizer.all_special_tokens), key=numbers.__getitem__)
    return " ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
