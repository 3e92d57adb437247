"""The tokenizer of an organism: words between spaces, built in memory, saved in the standard files.

The opening word is added by itself when the program has one; padding is on the left. A word outside the vocabulary
is an error, not a silent unknown.
"""

from typing import TYPE_CHECKING

from mainspring.organisms.program import PAD, Program

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from mainspring.organisms.templates import Draw

__all__ = ["ids_of", "tokenizer_of"]


def tokenizer_of(program: Program) -> "PreTrainedTokenizerFast":
    """The tokenizer for a program's vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(program.vocabulary)}
    tokenizer = Tokenizer(WordLevel(ids))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    bos = program.sinks[0]
    if len(program.sinks) == 1:
        tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{bos} $A", pair=None, special_tokens=[(bos, ids[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=bos,
        padding_side="left",
        model_max_length=program.length,
        model_input_names=["input_ids", "attention_mask"],
    )


def ids_of(program: Program, draws: "list[Draw]") -> "Tensor":
    """[b, p] token ids of inputs of equal length."""
    import torch

    index = {word: i for i, word in enumerate(program.vocabulary)}
    return torch.tensor([[index[word] for word in given.tokens] for given in draws])
