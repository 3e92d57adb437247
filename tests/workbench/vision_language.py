"""Tiny random checkpoints of every class of vision-language models, with a real processor and a tokenizer of whole words, saved to folders.

Each has the special tokens, the tiles or the grid of its class, and takes images of any size, as its large relatives do. Their weights are
random: they say nothing, and every path of the page is walked.
"""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split
from tokenizers.processors import TemplateProcessing

from conformance.zoo import CASES
from conformance.zoo import vision_language as zoo

NAMES = ("llava", "gemma3", "paligemma", "idefics3", "smolvlm", "qwen2-vl", "qwen2.5-vl", "qwen3-vl")
TILED = ("idefics3", "smolvlm")
WITH_VIDEOS = ("smolvlm", "qwen2-vl", "qwen2.5-vl", "qwen3-vl")
"""Their processors do not open without the packages that read videos."""
SPECIAL = {
    "llava": {"image": "<image>"},
    "gemma3": {"image": "<image_soft_token>", "boi": "<start_of_image>", "eoi": "<end_of_image>"},
    "paligemma": {"image": "<image>"},
    "idefics3": {"image": "<image>", "fake": "<fake_token_around_image>", "global": "<global-img>"},
    "smolvlm": {"image": "<image>", "fake": "<fake_token_around_image>", "global": "<global-img>"},
    "qwen2-vl": {"image": "<|image_pad|>", "video": "<|video_pad|>", "start": "<|vision_start|>", "end": "<|vision_end|>"},
}
SPECIAL["qwen2.5-vl"] = SPECIAL["qwen3-vl"] = SPECIAL["qwen2-vl"]
TEXT = "Describe this panel the panels one by : 1 2 3 4 5 6 a red blue green dog cat box ."
WORDS = [*TEXT.split(), "\n"]


def tokenizer_of(name):
    """Words, the special tokens of the class where the zoo has their ids, and a template for chats."""
    special = SPECIAL[name]
    ids = {"<pad>": zoo.PAD, "<bos>": zoo.BOS, "<eos>": 3, "<unk>": 4, special["image"]: zoo.IMAGE}
    if name == "gemma3":
        ids |= {special["boi"]: zoo.BOI, special["eoi"]: zoo.EOI}
    elif name.startswith("qwen"):
        ids |= {special["video"]: 6, special["start"]: 7, special["end"]: 8}
    elif name in TILED:
        ids |= {special["fake"]: zoo.FAKE, special["global"]: zoo.GLOBAL}
        ids |= {f"<row_{r}_col_{c}>": 20 + 4 * r + c for r in (1, 2, 3, 4) for c in (1, 2, 3, 4)}
        ids |= {"<end_of_utterance>": 11}
    ids |= {f"<loc{i:04}>": 50 + i for i in range(2)} | {f"<seg{i:03}>": 52 + i for i in range(2)} if name == "paligemma" else {}
    free = (i for i in range(12, zoo.VOCAB) if i not in ids.values())
    ids |= {word: next(free) for word in WORDS}
    made = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = Sequence([Split("\n", "isolated"), Split(" ", "removed")])
    made.post_processor = TemplateProcessing(single="<bos> $A", pair=None, special_tokens=[("<bos>", zoo.BOS)])
    names = {f"{key}_token": token for key, token in special.items()}
    extra = [*special.values(), *(token for token in ids if token.startswith("<row_"))]
    made.add_special_tokens(extra)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", padding_side="left",
        extra_special_tokens=names, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def processor_of(name, tokenizer):
    if name == "llava":
        images = hf.CLIPImageProcessorPil(size={"shortest_edge": 18}, crop_size={"height": 18, "width": 18})
        more = {"patch_size": 6, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        return hf.LlavaProcessor(images, tokenizer, **more)
    if name == "gemma3":
        return hf.Gemma3Processor(hf.Gemma3ImageProcessorPil(size={"height": 24, "width": 24}), tokenizer, image_seq_length=4)
    if name == "paligemma":
        images = hf.SiglipImageProcessorPil(size={"height": 12, "width": 12})
        images.image_seq_length = 4
        return hf.PaliGemmaProcessor(images, tokenizer)
    if name == "idefics3":
        sizes = {"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 16}}
        return hf.Idefics3Processor(hf.Idefics3ImageProcessorPil(**sizes), tokenizer, image_seq_len=4)
    if name == "smolvlm":
        sizes = {"size": {"longest_edge": 48}, "max_image_size": {"longest_edge": 16}}
        return without_videos(hf.SmolVLMProcessor, hf.SmolVLMImageProcessorPil(**sizes), tokenizer, image_seq_len=4)
    grid = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 64, "longest_edge": 2304}}
    cls = {"qwen2-vl": "Qwen2VLProcessor", "qwen2.5-vl": "Qwen2_5_VLProcessor", "qwen3-vl": "Qwen3VLProcessor"}[name]
    return without_videos(getattr(hf, cls), hf.Qwen2VLImageProcessorPil(**grid), tokenizer)


def without_videos(cls, images, tokenizer, **more):
    """A processor whose part for videos is left out, for it needs torchvision and num2words; that for images is the real one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cls, "check_argument_for_proper_class", lambda *_: None)
        patched.setitem(cls.__init__.__globals__, "num2words", str)
        return cls(images, tokenizer, video_processor=None, **more)


def saved(name: str, folder: Path) -> Path:
    """A folder with the model, its processor and its tokenizer, as a real checkpoint lies on disk."""
    tokenizer = tokenizer_of(name)
    CASES[name].build().save_pretrained(folder)
    made = processor_of(name, tokenizer)
    if name not in WITH_VIDEOS:
        made.save_pretrained(folder)
        return folder
    tokenizer.save_pretrained(folder)
    made.image_processor.save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "processor_class": type(made).__name__}))
    return folder


@contextmanager
def videos_left_out():
    """What `AutoProcessor` opens where the packages for videos are not installed: the same processor without that part."""
    real = hf.AutoProcessor.from_pretrained

    def opened(folder, *given, **more):
        name = Path(folder).name
        return (
            processor_of(name, hf.PreTrainedTokenizerFast.from_pretrained(folder))
            if name in WITH_VIDEOS
            else real(folder, *given, **more)
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hf.AutoProcessor, "from_pretrained", opened)
        yield
