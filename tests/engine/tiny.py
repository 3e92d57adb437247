"""Two tiny models with random weights everywhere: a Llama with grouped heads, wider than the model has room for, and a GPT-2."""

import functools

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

VOCAB, WIDTH, LAYERS, HEADS, KV, FF = 40, 24, 3, 4, {"llama": 2, "gpt2": 4}, 36
HEAD_DIM = {"llama": 10, "gpt2": 6}


def _llama():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            head_dim=10,
            intermediate_size=FF,
            max_position_embeddings=64,
            rms_norm_eps=1e-3,
            attention_bias=True,
            mlp_bias=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=None,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        )
    )


def _gpt2():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_inner=FF,
            n_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=None,
        )
    )


def _build(make):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = make().eval()
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter.shape[0] if "c_" in name else parameter.shape[1]
                parameter.normal_(0, 1.3 * fan_in**-0.5 if "wte" not in name and "embed" not in name else 0.7)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module


BUILD = {"llama": functools.partial(_build, _llama), "gpt2": functools.partial(_build, _gpt2)}


def ids(*lengths, seed=0):
    """Lists of tokens of the given lengths; token 0 (the pad) does not occur."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 + seed), dtype=dtype)


def left_padded(rows):
    """The module's own arguments for rows padded on the left."""
    width = max(map(len, rows))
    tokens, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
    return {"input_ids": tokens, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def fingerprint(module):
    """The exact bits of all parameters and buffers."""
    return {name: t.detach().clone().numpy().tobytes() for name, t in [*module.named_parameters(), *module.named_buffers()]}


def hooks_on(module):
    """Names of modules that carry any hook."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [name for name, m in module.named_modules() if any(getattr(m, kind) for kind in kinds)]
