"""A small untrained GPT-2 over words, and its tokenizer: ordinary HuggingFace objects.

Word embeddings are tied and begin as orthonormal rows (the width must hold the vocabulary): tied default ones collapse onto each
other long before they are told apart. Positions begin as waves of unit length, all frequencies alike and randomly turned: neighbours
are orthogonal, and one place back is one rotation for all. A layer without an MLP has one that writes exactly nothing: its output matrix
is zero, and frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

__all__ = ["POSITIONS", "Size", "build_model", "build_tokenizer"]


POSITIONS = 64


@dataclass(frozen=True)
class Size:
    """Layers, heads in each, width of the residual stream, neurons in each MLP, and which layers have one."""

    layers: int = 3
    heads: int = 4
    width: int = 128
    inner: int = 256
    mlps: tuple[int, ...] = (0,)


def build_tokenizer(words: Sequence[str]) -> "PreTrainedTokenizerFast":
    """One token per word between spaces; `<bos>` goes in front by itself. `words` begin with `<pad>` and `<bos>`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=None))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", pair=None, special_tokens=[("<bos>", ids["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        padding_side="left",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(words: Sequence[str], size: Size, seed: int) -> "GPT2LMHeadModel":
    """Random weights of one seed; the global random state is left as it was."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if len(words) > size.width:
        raise ValueError(f"{len(words)} orthonormal embeddings do not fit into width {size.width}")
    config: Any = GPT2Config(
        vocab_size=len(words),
        n_positions=POSITIONS,
        n_embd=size.width,
        n_inner=size.inner,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=size.width**-0.5,  # the library's 0.02 is for wide models: here attention would begin flat
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        rows = torch.linalg.qr(torch.randn(size.width, len(words)))[0].T
        turned = torch.linalg.qr(torch.randn(size.width, size.width))[0]
    angles = torch.arange(POSITIONS)[:, None] * (torch.arange(size.width // 2) + 0.5) * (2 * torch.pi / size.width)
    waves = torch.cat([angles.sin(), angles.cos()], 1) / (size.width / 2) ** 0.5
    with torch.no_grad():
        model.transformer.wte.weight.copy_(rows)
        model.transformer.wpe.weight.copy_(waves @ turned)
    model.tie_weights()
    for layer, block in enumerate(model.transformer.h):
        if layer not in size.mlps:
            _silence(block.mlp)
    return model


def _silence(mlp: Any) -> None:
    for parameter in mlp.parameters():
        parameter.requires_grad_(False)
    torch.nn.init.zeros_(mlp.c_proj.weight)
    torch.nn.init.zeros_(mlp.c_proj.bias)
