"""Every invariant of the cache, asserted. For tests and for a running engine in doubt: O(pages)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vllm_core.engine.cache.cross_pages import CrossPages
from vllm_core.engine.cache.recurrent_pages import RecurrentPages
from vllm_core.interfaces.steps import NULL_PAGE

if TYPE_CHECKING:
    from vllm_core.engine.cache.manager import CacheManager


def check_cache(manager: CacheManager) -> None:
    """Raise ``AssertionError`` unless each page is accounted for exactly once per owner."""
    pool, fence = manager.pool, manager.fence
    pool.check()

    owners: Counter[int] = Counter(manager.copies.sources())
    group_of: dict[int, int] = {page: group for page, (group, _) in pool.names.items()}
    for seq_id, seq in manager.sequences.items():
        assert seq.last_step <= fence.launched, f"{seq_id!r} takes part in a step that was never launched"
        if seq.tables is None:
            assert not seq.nulls, f"{seq_id!r} waits, yet has table entries to change"
            assert seq.computed == seq.room == 0, f"{seq_id!r} waits, yet has computed tokens or room"
            continue
        assert seq.computed <= len(seq.tokens), f"{seq_id!r} has computed tokens that nobody knows"
        for group, table in zip(manager.groups.all, seq.tables, strict=True):
            mine = [page for page in table.pages if page != NULL_PAGE]
            owners.update(mine)
            assert len(set(mine)) == len(mine), f"{seq_id!r} has a page twice in group {group.index}"
            assert table.source == NULL_PAGE, f"{seq_id!r} still holds the source of a copy"
            for page in mine:
                assert group_of.setdefault(page, group.index) == group.index, f"page {page} belongs to two groups"
            if isinstance(group, RecurrentPages):
                held = table.pages[: group.ring]
                assert len(held) == group.ring, f"{seq_id!r} lacks a state in group {group.index}"
            elif isinstance(group, CrossPages):
                held = table.pages
                assert len(held) == group.blocks(seq.encoder_tokens), f"{seq_id!r} lacks encoder pages"
            else:
                held = table.pages[table.first :]
                assert table.first <= group.first_needed(seq.computed), f"{seq_id!r} lost pages of its window"
                assert group.blocks(seq.computed) <= len(table.pages), f"{seq_id!r} has tokens without a place"
            assert NULL_PAGE not in held, f"{seq_id!r} lacks a page in group {group.index}"

    waiting = [page for _, pages in fence.waiting for page in pages]
    owners.update(waiting)
    assert len(waiting) == fence.num_waiting, "the fence has miscounted its pages"
    assert all(step > fence.retired for step, _ in fence.waiting), "a page waits for a step that has retired"

    counted = [owners.get(page, 0) for page in range(pool.num_pages)]
    wrong = [page for page in range(pool.num_pages) if counted[page] != pool.owners[page]]
    assert not wrong, f"pages {wrong[:10]} have another number of owners than the pool believes"
