"""A tokenizer of whole words, made in memory, and tiny checkpoints that bring it along."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from conformance.zoo import CASES

WORDS = (
    *("<pad>", "<unk>", "<s>", "</s>", "the", "capital", "of", "Oland"),
    *("Freland", "is", "Oslo", "Paris", "user:", "bot:", "hi", "you"),
)
CHAT = "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% endfor %}bot:"


def words(bos=True, chat=False, size=96):
    """One token a word, with <s> before a text. Words beyond the named ones are w16, w17, ..."""
    vocabulary = {word: i for i, word in enumerate((*WORDS, *(f"w{i}" for i in range(len(WORDS), size))))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = CHAT if chat else None
    return tokenizer


def checkpoint(folder, family="llama", tokenizer=True, **options):
    """A tiny model of the zoo saved as transformers saves it; returns the folder."""
    CASES[family].build().save_pretrained(folder, **options)
    if tokenizer:
        words().save_pretrained(folder)
    return folder
