"""How wide the block tables of a row are. The runner and the cache manager both read it here."""

from __future__ import annotations

from vllm_core.interfaces.cache import CachePlan, CrossAttentionCache, RecurrentCache


def table_widths(
    plan: CachePlan, *, max_model_len: int, num_drafts: int = 0, max_encoder_tokens: int = 0, checkpoints: bool = True
) -> list[int]:
    """Entries a row's block table needs, per group. Drafts may stand beyond ``max_model_len``.

    Recurrent groups: see ``recurrent_pages.RecurrentPages`` for what the entries mean;
    ``checkpoints`` is whether prefixes are cached.
    """
    most = max_model_len + num_drafts  # tokens
    widths = []
    for group in plan.groups:
        if isinstance(group.spec, RecurrentCache):
            widths.append(1 + num_drafts + (most // group.block_size if checkpoints else 0))
        elif isinstance(group.spec, CrossAttentionCache):
            widths.append(-(-max_encoder_tokens // group.block_size))
        else:
            widths.append(-(-most // group.block_size))
    return widths
