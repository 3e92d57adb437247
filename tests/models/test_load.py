"""Opening checkpoints: what is whole opens with the same numbers, what is not is refused with its reason."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, LlavaProcessor

import mainspring as ms
from conformance.zoo import CASES
from mainspring import at, errors
from words import checkpoint, words

TEXT = "the capital of Oland is"


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "mamba", "vit", "clip", "llava"])
def test_a_saved_model_opens_with_the_same_numbers(family, tmp_path):
    own, inputs = CASES[family].build(), CASES[family].inputs()
    model = ms.load(checkpoint(tmp_path, family))
    assert type(model.module) is type(own)
    assert model.family != "unmapped"
    assert not model.module.training
    with torch.no_grad():
        expected, found = own(**inputs), model.run(inputs, until="end").output
    for key in ("logits", "logits_per_image"):
        if key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-6, atol=1e-6)


def test_the_tokenizer_comes_along(tmp_path):
    model, own = ms.load(str(checkpoint(tmp_path))), CASES["llama"].build()
    ids = torch.tensor([[2, 4, 5, 6, 7, 9]])
    trace = model.run(TEXT, until="end")
    assert torch.equal(trace.tokens, ids)
    assert torch.equal(trace.logits, own(ids).logits)
    generated = own.generate(ids, max_new_tokens=4, do_sample=False)[0, 6:]
    assert model.generate(TEXT, max_new_tokens=4).text == (words().decode(generated, skip_special_tokens=True),)


def test_without_a_tokenizer_text_is_refused_and_tokens_run(tmp_path):
    model = ms.load(checkpoint(tmp_path, tokenizer=False))
    with pytest.raises(errors.MissingTokenizer, match="tokenizer"):
        model.run(TEXT)
    assert model.run([[4, 5]], until="end").logits.shape == (1, 2, 96)


def test_dtype_and_device(tmp_path):
    folder = checkpoint(tmp_path)
    assert ms.load(folder).dtype == torch.float32
    half = ms.load(folder, dtype=torch.bfloat16, device="cpu")
    assert {p.dtype for p in half.module.parameters()} == {torch.bfloat16}
    assert half.run([[4, 5]], read=at.embed)[at.embed].dtype == torch.bfloat16
    CASES["llama"].build().to(torch.float16).save_pretrained(tmp_path / "half")
    assert ms.load(tmp_path / "half").dtype == torch.float16
    assert ms.load(folder, device=torch.device("meta")).device.type == "meta"
    with pytest.raises(errors.LoadError, match="nowhere"):
        ms.load(folder, device="nowhere")


def test_home_is_understood(tmp_path, monkeypatch):
    checkpoint(tmp_path / "tiny")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ms.load("~/tiny").family == "llama"


def test_shards(tmp_path):
    folder = checkpoint(tmp_path, max_shard_size="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert ms.load(folder).n_layers == 3
    shards[1].unlink()
    with pytest.raises(errors.MissingWeights, match=shards[1].name):
        ms.load(folder)


# ---- damage ----


def without_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


def empty_config(folder):
    (folder / "config.json").write_text("{}")


def unknown_architecture(folder):
    (folder / "config.json").write_text('{"model_type": "perceptron-9000"}')


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def overwritten(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def without_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def of_another_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(5, 7)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def broken_index(folder):
    (folder / "model.safetensors.index.json").write_text("[1]")


def broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{")


DAMAGE = [
    (without_config, errors.LoadError, "config.json"),
    (broken_config, errors.BrokenCheckpoint, "config.json"),
    (empty_config, errors.LoadError, "model_type"),
    (unknown_architecture, errors.LoadError, "perceptron-9000"),
    (without_weights, errors.MissingWeights, "no weights"),
    (cut_short, errors.BrokenCheckpoint, "model.safetensors"),
    (overwritten, errors.BrokenCheckpoint, "model.safetensors"),
    (without_a_tensor, errors.MissingWeights, r"lacks 1 .*model\.layers\.1\.mlp\.up_proj\.weight"),
    (of_another_shape, errors.BrokenCheckpoint, r"up_proj\.weight is \[5, 7\], not \[72, 48\]"),
    (broken_index, errors.BrokenCheckpoint, "index"),
    (broken_tokenizer, errors.BrokenCheckpoint, r"tokenizer\.json"),
]


@pytest.mark.parametrize(("damage", "error", "words_of_it"), DAMAGE, ids=[d[0].__name__ for d in DAMAGE])
def test_damage_is_named_and_nothing_is_filled_in(damage, error, words_of_it, tmp_path):
    damage(checkpoint(tmp_path))
    with pytest.raises(error, match=words_of_it) as caught:
        ms.load(tmp_path)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nobody/nothing-at-all", "nothing-at-all"])
def test_an_unknown_name_is_one_error_and_no_wait(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(errors.LoadError, match=name) as caught:
        ms.load(name)
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)


def test_folders_and_organisms_that_are_not_there(tmp_path):
    for name in ("./not-here", str(tmp_path / "nothing"), "~/not/here"):
        with pytest.raises(errors.LoadError, match="no folder"):
            ms.load(name)
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.LoadError, match="no folder"):
        ms.load(tmp_path / "file")
    with pytest.raises(errors.LoadError, match="no organism 'unicorn'"):
        ms.load("organism:unicorn")
    with pytest.raises(errors.LoadError, match="no organism"):
        ms.load("organism:../../tmp")


# ---- images ----


def test_a_processor_folder(tmp_path):
    from PIL import Image

    folder = checkpoint(tmp_path, "llava", tokenizer=False)
    tokenizer = words()
    tokenizer.add_special_tokens({"additional_special_tokens": ["w16"]})
    images = CLIPImageProcessorPil(size={"shortest_edge": 18}, crop_size={"height": 18, "width": 18})
    sizes = {"patch_size": 6, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = LlavaProcessor(image_processor=images, tokenizer=tokenizer, image_token="w16", **sizes)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_id": 16, "image_token_index": 16}))
    model = ms.load(folder)
    assert model.processor is not None
    assert model.tokenizer is model.processor.tokenizer
    pictures = [Image.effect_noise((30, 20), 80).convert("RGB"), Image.effect_noise((18, 18), 30).convert("RGB")]
    texts = ["w16 the capital of", "the w16 is Oslo you hi"]
    trace = model.run(texts, images=pictures, read=at.projector, until="end")
    encoded = processor(text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="right")
    assert (trace.tokens == 16).sum() == 18
    assert torch.equal(trace.tokens, encoded["input_ids"])
    with torch.no_grad():
        assert torch.equal(trace.logits, model.module(**encoded).logits)
    alone = model.generate(texts[1], images=pictures[1:], max_new_tokens=4)
    assert torch.equal(model.generate(texts, images=pictures, max_new_tokens=4).new_tokens[1], alone.new_tokens[0])
    assert model.run("the capital", until="end").logits.shape[1] == 3


# ---- modules in memory ----


def test_any_module_offers_itself_and_says_why_no_more(hook_free):
    torch.manual_seed(0)
    module = hook_free(torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)))
    model, x = ms.wrap(module), torch.randn(5, 4)
    assert model.family == "unmapped"
    trace = model.run(x, read=[at.module["1"].output, 'module["2"].input'], edits=at.module["0"].output(dim=2).set(0.5))
    hidden = module[0](x)
    hidden[:, 2] = 0.5
    torch.testing.assert_close(trace[at.module["1"].output], hidden.tanh())
    torch.testing.assert_close(trace.output, module[2](hidden.tanh()))
    for site in ("embed", "layers.0.resid_post", "logits"):
        with pytest.raises(errors.UnmappedModel, match=r"Sequential has no map.*module\["):
            model.run(x, read=site)
        assert not model.can(site)
        assert "no map" in model.can(site).reason
    assert model.can('module["1"].output')
    with pytest.raises(errors.UnknownSite, match="no module '3'"):
        model.run(x, read=at.module["3"].output)


def test_wrapping_leaves_the_module_as_it_was(hook_free):
    module = hook_free(CASES["llama"].build().train())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    model = ms.wrap(module, tokenizer=words())
    assert model.module is module
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert "llama" in repr(model)
    assert model.tokenizer.bos_token == "<s>"
