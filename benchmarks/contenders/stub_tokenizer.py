"""A tokenizer for libraries that insist on having one. No task uses it: inputs are token ids."""

from __future__ import annotations


def stub_tokenizer():
    """One word, no beginning-of-sequence token, no files, no network."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    special = "<s>"
    backend = Tokenizer(WordLevel({special: 0}, unk_token=special))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=special, pad_token=special, unk_token=special
    )
