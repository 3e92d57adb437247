"""Forty functions of the kind that people put into `apply`, each with the shape of the site it is for."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from engine.tiny import noise

D, F_SAE, H, DH = 24, 60, 4, 6
RESID, HEADS, SCORES, NEURONS, ONE = (
    ("batch", "pos", D),
    ("batch", "pos", H, DH),
    ("batch", H, "query", "key"),
    ("batch", "pos", 36),
    ("batch", D),
)


def table(dtype):
    """name -> (function, shape); what the functions hold is of `dtype`."""
    d, e = (noise(D, seed=i, dtype=torch.float32).to(dtype) for i in (1, 2))
    rot = torch.linalg.qr(noise(D, D, seed=3))[0].to(dtype)
    basis = torch.linalg.qr(noise(D, 3, seed=4))[0].to(dtype)
    enc, dec = noise(D, F_SAE, seed=5).to(dtype) / 5, noise(F_SAE, D, seed=6).to(dtype) / 8
    bias = noise(F_SAE, seed=7).to(dtype)
    low, high = (noise(D, seed=8) - 1).to(dtype), (noise(D, seed=9) + 1).to(dtype)
    heads = noise(H, DH, seed=10).to(dtype)
    gain = noise(H, seed=11).to(dtype)
    block = nn.Sequential(nn.Linear(D, 32), nn.GELU(), nn.Linear(32, D)).to(dtype)
    with torch.no_grad():
        for i, p in enumerate(block.parameters()):
            p.copy_(noise(*p.shape, seed=20 + i) / 6)

    def keep_norm(v):
        moved = v + 2 * d
        return moved * v.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)

    def stats_clamp(v):
        mean, std = v.float().mean(-1, keepdim=True), v.float().std(-1, keepdim=True)
        return v.float().clamp(mean - std, mean + std).to(v.dtype)

    def sae(v):
        return torch.relu(v @ enc + bias) @ dec

    def sae_top_k(v):
        acts = torch.relu(v @ enc + bias)
        top = acts.topk(7, dim=-1)
        return torch.zeros_like(acts).scatter(-1, top.indices, top.values) @ dec

    def sae_error(v):
        acts = torch.relu(v @ enc)
        changed = acts.clone()
        changed[..., 5] = 4.0
        return v + (changed - acts) @ dec

    def top_k_mask(v):
        bound = v.abs().topk(6, dim=-1).values[..., -1:]
        return torch.where(v.abs() >= bound, v, torch.zeros_like(v))

    def positions(v):
        where = torch.arange(v.shape[1], device=v.device) % 3 == 1
        return torch.where(where[None, :, None], v + d, v)

    def last_only(v):
        out = v.clone()
        out[:, -1] = out[:, -1] * 2 + d
        return out

    def causal(s):
        n = s.shape[-1]
        return s.masked_fill(torch.ones(n, n, dtype=torch.bool, device=s.device).triu(1), -math.inf)

    def band(s):
        q = torch.arange(s.shape[-2], device=s.device)[:, None]
        k = torch.arange(s.shape[-1], device=s.device)[None]
        return torch.where((q - k).abs() <= 2, s, s - 5)

    def renormalise(p):
        p = p.softmax(-1)
        p = torch.where(p > 0.2, p, 0.0)
        return p / p.sum(-1, keepdim=True).clamp(min=1e-3)

    def running_mean(v):
        steps = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
        return v.cumsum(1) / steps[None, :, None]

    def self_attention(v):
        w = (v @ v.transpose(1, 2) / math.sqrt(D)).softmax(-1)
        return w @ v

    def swap_halves(v):
        a, b = v.chunk(2, dim=-1)
        return torch.cat([b, a], dim=-1)

    def rotary(v):
        half = torch.stack([-v[..., 1::2], v[..., ::2]], -1).flatten(-2)
        return v * d.cos() + half * d.sin()

    def second_order(v):
        return v - 0.1 * torch.einsum("bpd,de,bpe->bp", v, rot, v)[..., None] * d

    return {
        "add": (lambda v: v + 3 * d, RESID),
        "keep_norm": (keep_norm, RESID),
        "stats_clamp": (stats_clamp, RESID),
        "project": (lambda v: v - (v @ basis) @ basis.T, RESID),
        "project_onto": (lambda v: v @ basis @ basis.T, RESID),
        "rotate": (lambda v: v @ rot, RESID),
        "rotate_swap": (lambda v: (torch.cat([(v @ rot)[..., :5] * 0, (v @ rot)[..., 5:]], -1)) @ rot.T, RESID),
        "gate": (lambda v: torch.where((v @ d)[..., None] > 0.5, v + e, v), RESID),
        "soft_gate": (lambda v: v + torch.sigmoid(4 * (v @ d - 1))[..., None] * e, RESID),
        "top_k_mask": (top_k_mask, RESID),
        "sae": (sae, RESID),
        "sae_top_k": (sae_top_k, RESID),
        "sae_error": (sae_error, RESID),
        "temperature": (lambda s: s / 0.7, SCORES),
        "softmax": (lambda s: (s * 1.3).softmax(-1), SCORES),
        "causal": (causal, SCORES),
        "band": (band, SCORES),
        "renormalise": (renormalise, SCORES),
        "per_head_gain": (lambda z: z * gain[:, None], HEADS),
        "per_head_direction": (lambda z: z + heads, HEADS),
        "per_head_project": (lambda z: z - torch.einsum("bphd,hd->bph", z, heads)[..., None] * heads / 6, HEADS),
        "swap_heads": (lambda z: z[:, :, [1, 0, 3, 2]], HEADS),
        "merge_heads": (lambda z: rearrange(rearrange(z, "b p h d -> b p (h d)") @ rot, "b p (h d) -> b p h d", h=H), HEADS),
        "one_head": (lambda z: torch.cat([z[:, :, :1] * 0, z[:, :, 1:]], 2), HEADS),
        "layer_norm": (lambda v: F.layer_norm(v, (D,)) * d + e, RESID),
        "rms_norm": (lambda v: v * torch.rsqrt(v.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(v.dtype) * d, RESID),
        "positions": (positions, RESID),
        "last_only": (last_only, RESID),
        "einsum": (lambda v: torch.einsum("bpd,ed->bpe", v, rot), RESID),
        "second_order": (second_order, RESID),
        "bounds": (lambda v: torch.maximum(torch.minimum(v, high), low), RESID),
        "mlp": (block, RESID),
        "gelu_neurons": (lambda v: F.gelu(v, approximate="tanh") * 0.5 + F.silu(v) * 0.5, NEURONS),
        "roll": (lambda v: v.roll(1, dims=1), RESID),
        "centre": (lambda v: v - v.mean((0, 1), keepdim=True), RESID),
        "running_mean": (running_mean, RESID),
        "self_attention": (self_attention, RESID),
        "swap_halves": (swap_halves, RESID),
        "rotary": (rotary, RESID),
        "one_position": (lambda v: F.normalize(v, dim=-1) * 3 + d, ONE),
        "in_place": (lambda v: v.mul_(2).add_(d), RESID),
        "length_scaled": (lambda v: v / math.sqrt(D) + v / v.shape[1], RESID),
    }


NAMES = tuple(table(torch.float32))
