import torch


def make(query):
    return rms_norm


def rms_norm(x, weight, eps):
    """As `vllm_core.ops.rms_norm`: bfloat16, accumulated in float32, rounded once."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale * weight.float()).to(x.dtype)
