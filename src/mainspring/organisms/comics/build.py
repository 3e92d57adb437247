"""The untrained model of the comics organism, its tokenizer and its processor: all ordinary HuggingFace objects.

LLaVA in miniature: a CLIP tower over 6 x 6 patches, a two-layer projector, a Llama with as many key-value heads as heads. Word
embeddings begin as orthonormal rows: tied default ones collapse onto each other long before they are told apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mainspring.tasks.comic_strips.strips import PATCH, SIDE
from mainspring.tasks.comic_strips.wording import IMAGE, WORDS

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

__all__ = ["Size", "build_model", "build_processor", "build_tokenizer"]


@dataclass(frozen=True)
class Size:
    """Layers and heads of the language model, layers of the tower. A head has `head_width` dimensions, or an equal share of `width`."""

    layers: int = 4
    heads: int = 8
    width: int = 128
    head_width: int | None = None
    tower_layers: int = 2
    tower_width: int = 64


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per word; `<bos>` goes in front by itself."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=None))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", pair=None, special_tokens=[("<bos>", ids["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_processor() -> "LlavaProcessor":
    """Pixels go in as they are, between 0 and 1: no resizing, no crop, no normalisation."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        do_resize=False,
        do_center_crop=False,
        do_rescale=True,
        do_normalize=False,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        size={"height": SIDE, "width": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,  # the tower's class token, which the model drops
    )


def build_model(size: Size, seed: int) -> "LlavaForConditionalGeneration":
    """Random weights of one seed; the global random state is left as it was."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision: Any = CLIPVisionConfig(
        hidden_size=size.tower_width,
        intermediate_size=2 * size.tower_width,
        num_hidden_layers=size.tower_layers,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=size.tower_width,
    )
    text: Any = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        head_dim=size.head_width or size.width // size.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=WORDS.index("<bos>"),
        eos_token_id=WORDS.index("<eos>"),
    )
    config: Any = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=WORDS.index(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        rows = torch.linalg.qr(torch.randn(size.width, len(WORDS)))[0].T
    with torch.no_grad():
        embedding: Any = model.get_input_embeddings()
        embedding.weight.copy_(rows)
    model.tie_weights()
    generation: Any = model.generation_config
    generation.pad_token_id, generation.bos_token_id, generation.eos_token_id = 0, 1, 3
    generation.suppress_tokens = [0, 1, 2]  # a model whose heads are all bent may want to say an image
    return model
