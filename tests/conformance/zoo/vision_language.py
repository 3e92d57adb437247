"""Vision-language models: what their processors would give, built by hand.

Row 0 (the example) holds two images, of different sizes where the family has sizes; row 1 one image; row 2 is text alone.
`facts["images"]` describes the image tokens of the example: for each image its pieces `(start, stop, rows, columns)`, a piece being a
run of tokens that covers a grid of the image (Idefics3 has several tiles per image, the last being the whole image).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from .case import BOS, LENGTHS, PAD, VOCAB, Case, Inputs, Side, collect, noise, pad_rows, seeded, tokens

D, HEADS, KV, DH, FF = 48, 4, 2, 20, 72
IMAGE, FAKE, GLOBAL, TILE_A, TILE_B, NEWLINE, BOI, EOI = 5, 6, 7, 8, 9, 10, 8, 9
TEXT = {
    "vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None, "hidden_size": D, "num_attention_heads": HEADS,
    "num_hidden_layers": 3, "intermediate_size": FF, "num_key_value_heads": KV, "head_dim": DH, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}  # fmt: skip
TOWER = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40, "layer_norm_eps": 1e-2}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
FACTS = {
    "layers": 3, "d_model": D, "heads": HEADS, "kv_heads": KV, "head_dim": DH, "mlp": FF, "vocab": VOCAB, "parallel": False,
    "sandwich": False, "post_norm": False, "gated": True, "registry": True, "attn_scale": DH**-0.5, "attn_softcap": None,
    "logit_softcap": None, "logit_scale": 1.0, "embed_scale": 1.0, "window": None, "sliding_layers": (), "tied": False, "causal": True,
    "needs_position_ids": False, "layer_returns": "tensor", "image_token": IMAGE,
    "vision_layers": 3, "vision_width": 32, "vision_heads": 2, "vision_mlp": 40,
}  # fmt: skip

Part = int | list[int] | tuple[int, ...]
"""Of a prompt: so many text tokens | these special tokens | an image piece of (rows, columns) tokens."""


def prompt(parts: list[Part], seed: int) -> tuple[torch.Tensor, list[tuple[int, int, int, int]]]:
    """[1, length] token ids and the image pieces in it."""
    ids: list[int] = []
    pieces = []
    for i, part in enumerate(parts):
        if isinstance(part, int):
            ids += tokens(part, seed=seed + i)[0].tolist()
        elif isinstance(part, list):
            ids += part
        else:
            rows, columns = part
            pieces.append((len(ids), len(ids) + rows * columns, rows, columns))
            ids += [IMAGE] * (rows * columns)
    return torch.tensor([ids]), pieces


def merge(rows: list[Inputs], side: Side) -> Inputs:
    """What a processor makes of several rows: text padded, images one after the other (or padded to the same number of tiles)."""
    out: Inputs = {"attention_mask": pad_rows([torch.ones_like(row["input_ids"]) for row in rows], side, 0)}
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        if key.endswith("_ids"):
            out[key] = pad_rows(values, side, PAD if key == "input_ids" else 0)
        elif values[0].shape[0] == 1 and values[0].ndim > 3 and key in ("pixel_values", "pixel_attention_mask"):
            empty = values[0].new_zeros(1, 0, *values[0].shape[2:])
            out[key] = pad_rows([row.get(key, empty) for row in rows], "right", 0)
        else:
            out[key] = torch.cat(values)
    return out


def case(
    name: str, model: str, config: Callable[[], Any], parts: Callable[[int], list[Part]], extra: Callable[[int, torch.Tensor], Inputs],
    tiles: tuple[int, ...] = (1, 1), notes: str = "", **facts: Any,
) -> Case:  # fmt: skip
    """`parts(i)` is the prompt of row i; `extra(i, ids)` all its inputs besides input_ids; `tiles` the pieces per image of the example."""

    def row(i: int) -> Inputs:
        ids, _ = prompt(parts(i), seed=100 * (i + 1))
        return {"input_ids": ids, **extra(i, ids)}

    def batch(side: Side = "left") -> tuple[Inputs, list[Inputs]]:
        rows = [row(i) for i in range(3)]
        return merge(rows, side), rows

    pieces = iter(prompt(parts(0), seed=100)[1])
    images = tuple(tuple(next(pieces) for _ in range(count)) for count in tiles)
    build = lambda: seeded(lambda: getattr(hf, model)(config()))
    return Case(name, "vision-language", build, lambda: row(0), batch, True, {**FACTS, "images": images, **facts}, notes)  # type: ignore[arg-type]


def paths(language: str, vision: str, projector: str, **more: Any) -> dict[str, Any]:
    return {"layers": f"{language}.layers", "embed": f"{language}.embed_tokens", "final_norm": f"{language}.norm", "head": "lm_head",
            "attn": "self_attn", "attn_out": "self_attn.o_proj", "mlp": "mlp", "mlp_out": "mlp.down_proj",
            "vision": vision, "projector": projector, **more}  # fmt: skip


# ------------------------------------------------------------------------------- images of one size: LLaVA, Gemma3, PaliGemma

COUNT = (2, 1, 0)
"""Images in rows 0, 1 and 2."""


def square(
    wrap: Callable[[tuple[int, int]], list[Part]], grid: tuple[int, int], first: bool = False
) -> Callable[[int], list[Part]]:
    """A prompt with images among the text (`first`: before it), each wrapped in its special tokens."""

    def parts(i: int) -> list[Part]:
        images = [wrap(grid) for _ in range(COUNT[i])]
        flat = [part for k, image in enumerate(images) for part in ([] if first or not k else [2]) + image]
        return [*flat, [BOS], LENGTHS[i]] if first else [[BOS], 3, *flat, LENGTHS[i]]

    return parts


def square_pixels(
    size: int, token_types: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Callable[[int, torch.Tensor], Inputs]:
    def extra(i: int, ids: torch.Tensor) -> Inputs:
        out: Inputs = {"pixel_values": noise(COUNT[i], 3, size, size, seed=i)} if COUNT[i] else {}
        return out | ({"token_type_ids": token_types(ids)} if token_types else {})

    return extra


def llava() -> hf.LlavaConfig:
    vision = {**TOWER, "model_type": "clip_vision_model", "image_size": 18, "patch_size": 6, "projection_dim": 24}
    return hf.LlavaConfig(
        vision_config=vision, text_config={**TEXT, "model_type": "llama", "attention_bias": True}, image_token_index=IMAGE,
        image_seq_length=9, vision_feature_layer=-2, vision_feature_select_strategy="default", tie_word_embeddings=False,
    )  # fmt: skip


def gemma3() -> hf.Gemma3Config:
    words = {
        **TEXT, "attention_bias": True, "query_pre_attn_scalar": 11, "final_logit_softcapping": 4.0, "sliding_window": 6, "layer_types": MIXED,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}},
    }  # fmt: skip
    vision = {**TOWER, "model_type": "siglip_vision_model", "image_size": 24, "patch_size": 6, "vision_use_head": False}
    return hf.Gemma3Config(
        text_config=words, vision_config=vision, mm_tokens_per_image=4, image_token_index=IMAGE, boi_token_index=BOI, eoi_token_index=EOI,
        tie_word_embeddings=True,
    )  # fmt: skip


def paligemma(second: bool) -> hf.PaliGemmaConfig:
    words = {**TEXT, "attention_bias": True, "model_type": "gemma2" if second else "gemma"}
    if second:
        words |= {"query_pre_attn_scalar": 11, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0, "sliding_window": 6,
                  "layer_types": MIXED}  # fmt: skip
    vision = {**TOWER, "model_type": "siglip_vision_model", "image_size": 12, "patch_size": 6, "vision_use_head": False,
              "projection_dim": D}  # fmt: skip
    return hf.PaliGemmaConfig(text_config=words, vision_config=vision, image_token_index=IMAGE, projection_dim=D, hidden_size=D,
                              tie_word_embeddings=True)  # fmt: skip


# ------------------------------------------------------------------------------------------ Idefics3 and SmolVLM: tiles


def tiled(i: int) -> list[Part]:
    """Image 1 in two tiles and as a whole, image 2 whole only, exactly as processing_idefics3 writes them."""
    split: list[Part] = [[FAKE, TILE_A], (2, 2), [FAKE, TILE_B], (2, 2), [NEWLINE, NEWLINE, FAKE, GLOBAL], (2, 2), [FAKE]]
    whole: list[Part] = [[FAKE, GLOBAL], (2, 2), [FAKE]]
    return [[BOS], 2, *([*split, 2, *whole], whole, [])[i], LENGTHS[i]]


def tiled_pixels(i: int, ids: torch.Tensor) -> Inputs:
    """The last tile of the example is the image of another shape: its lower quarter is padding."""
    count = (4, 1, 0)[i]
    if not count:
        return {}
    pixels, mask = noise(1, count, 3, 16, 16, seed=i), torch.ones(1, count, 16, 16, dtype=torch.long)
    if i == 0:
        pixels[:, 3, :, 12:], mask[:, 3, 12:] = 0, 0
    return {"pixel_values": pixels, "pixel_attention_mask": mask}


def idefics(config: str, tied: bool) -> Callable[[], Any]:
    return lambda: getattr(hf, config)(
        text_config={**TEXT, "model_type": "llama"}, vision_config={**TOWER, "image_size": 16, "patch_size": 4}, image_token_id=IMAGE,
        scale_factor=2, tie_word_embeddings=tied,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------- Qwen-VL: grids of any size

GRIDS = ([(1, 4, 6), (1, 2, 4)], [(1, 4, 4)], [])
"""Patches (time, height, width) of the images of each row; 2 x 2 patches make a token."""


def qwen_parts(i: int) -> list[Part]:
    images: list[Part] = []
    for k, (_, height, width) in enumerate(GRIDS[i]):
        images += ([] if not k else [2]) + [[7], (height // 2, width // 2), [8]]
    return [3, *images, LENGTHS[i]]


def qwen_pixels(i: int, ids: torch.Tensor) -> Inputs:
    out: Inputs = {"mm_token_type_ids": (ids == IMAGE).long()}
    if GRIDS[i]:
        grid = torch.tensor(GRIDS[i])
        out |= {"pixel_values": noise(int(grid.prod(-1).sum()), 3 * 2 * 4 * 4, seed=i), "image_grid_thw": grid}
    return out


QWEN = {"image_token_id": IMAGE, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
MROPE = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [2, 3, 3]}
WORDS = {k: v for k, v in TEXT.items() if k != "head_dim"} | {"hidden_size": 64, "rope_parameters": MROPE}
"""Qwen2-VL and Qwen2.5-VL have no head_dim: heads of 16, rotary over three axes."""
PATCH = {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3, "num_heads": 2, "depth": 3}


def qwen2_vl() -> hf.Qwen2VLConfig:
    return hf.Qwen2VLConfig(
        text_config=WORDS, vision_config={**PATCH, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}, **QWEN
    )


def qwen2_5_vl() -> hf.Qwen2_5_VLConfig:
    vision = {
        **PATCH,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 40,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return hf.Qwen2_5_VLConfig(text_config=WORDS, vision_config=vision, tie_word_embeddings=True, **QWEN)


def qwen3_vl() -> hf.Qwen3VLConfig:
    rope = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [4, 3, 3], "mrope_interleaved": True}
    vision = {**PATCH, "hidden_size": 32, "out_hidden_size": D, "intermediate_size": 40, "num_position_embeddings": 16,
              "deepstack_visual_indexes": [0, 1]}  # fmt: skip
    words = {**TEXT, "attention_bias": True, "rope_parameters": rope}
    return hf.Qwen3VLConfig(text_config=words, vision_config=vision, tie_word_embeddings=False, **QWEN)


WIDE = {"d_model": 64, "head_dim": 16, "attn_scale": 0.25, "mrope": True}
ROPE_STATE = "model.rope_deltas is state that a run leaves behind."
QWEN_PATHS = paths(
    "model.language_model", "model.visual.blocks", "model.visual.merger", vision_attn="attn", vision_attn_out="attn.proj"
)
SIGLIP = {"vision_attn": "self_attn", "vision_attn_out": "self_attn.out_proj"}

CASES = collect(
    case(
        "llava", "LlavaForConditionalGeneration", llava, square(lambda grid: [grid], (3, 3)), square_pixels(18),
        paths=paths("model.language_model", "model.vision_tower.encoder.layers", "model.multi_modal_projector", **SIGLIP),
        notes="The projector reads the input of the last vision layer, without the class token.",
    ),
    case(
        "gemma3", "Gemma3ForConditionalGeneration", gemma3, square(lambda grid: [[NEWLINE, BOI], grid, [EOI, NEWLINE]], (2, 2)),
        square_pixels(24, lambda ids: (ids == IMAGE).long()), sandwich=True, window=6, sliding_layers=(0, 2), attn_scale=11**-0.5,
        embed_scale=D**0.5, embed_scale_in_module=True, tied=True, qk_norm=True, causal="image tokens see their whole image",
        paths=paths("model.language_model", "model.vision_tower.encoder.layers", "model.multi_modal_projector", **SIGLIP),
        notes="Tokens of one image attend to each other in both directions. Unlike the text class, this one ignores final_logit_softcapping.",
    ),
    case(
        "paligemma", "PaliGemmaForConditionalGeneration", lambda: paligemma(False), square(lambda grid: [grid], (2, 2), first=True),
        square_pixels(12, torch.zeros_like), embed_scale=D**0.5, embed_scale_in_module=True, tied=True, causal=False,
        paths=paths("model.language_model", "model.vision_tower.encoder.layers", "model.multi_modal_projector", **SIGLIP),
        notes="The whole prompt (token type 0) attends in both directions; generated tokens are causal. Positions start at 1.",
    ),
    case(
        "paligemma2", "PaliGemmaForConditionalGeneration", lambda: paligemma(True), square(lambda grid: [grid], (2, 2), first=True),
        square_pixels(12, torch.zeros_like), sandwich=True, window=6, sliding_layers=(0, 2), attn_scale=11**-0.5, attn_softcap=3.0,
        logit_softcap=4.0, embed_scale=D**0.5, embed_scale_in_module=True, tied=True, causal=False,
        paths=paths("model.language_model", "model.vision_tower.encoder.layers", "model.multi_modal_projector", **SIGLIP),
        notes="As paligemma: within the prompt even the sliding layers see everything. The text model runs eager, the rest sdpa.",
    ),
    case(
        "idefics3", "Idefics3ForConditionalGeneration", idefics("Idefics3Config", tied=False), tiled, tiled_pixels, tiles=(3, 1),
        paths=paths("model.text_model", "model.vision_model.encoder.layers", "model.connector", **SIGLIP), vision_rows=4,
        notes="Vision runs on tiles: batch dimension 4 for the example. Tiles of zeros only are dropped before the vision model.",
    ),
    case(
        "smolvlm", "SmolVLMForConditionalGeneration", idefics("SmolVLMConfig", tied=True), tiled, tiled_pixels, tiles=(3, 1), tied=True,
        paths=paths("model.text_model", "model.vision_model.encoder.layers", "model.connector", **SIGLIP), vision_rows=4,
    ),
    case(
        "qwen2-vl", "Qwen2VLForConditionalGeneration", qwen2_vl, qwen_parts, qwen_pixels, **WIDE, vision_mlp=64,
        paths={**QWEN_PATHS, "vision_mlp_out": "mlp.fc2"},
        notes=f"Vision has no batch dimension: patches of all images in a row, attention called once per image. {ROPE_STATE}",
    ),
    case(
        "qwen2.5-vl", "Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, qwen_parts, qwen_pixels, **WIDE, tied=True, vision_full_layers=(1,),
        paths={**QWEN_PATHS, "vision_mlp_out": "mlp.down_proj"},
        notes=f"Vision patches are permuted into windows before the blocks; outputs of the merger are put back in order. {ROPE_STATE}",
    ),
    case(
        "qwen3-vl", "Qwen3VLForConditionalGeneration", qwen3_vl, qwen_parts, qwen_pixels, mrope=True, qk_norm=True, deepstack_layers=(0, 1),
        paths={**QWEN_PATHS, "vision_mlp_out": "mlp.linear_fc2"},
        notes=f"Deepstack: vision features are added to the stream after text layers 0 and 1, between layers. {ROPE_STATE}",
    ),
)  # fmt: skip
