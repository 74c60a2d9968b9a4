"""The pages of all cache groups: who may write to one, who reads it, which one to give out next."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable

from vllm_core.interfaces.steps import NULL_PAGE


class PagePool:
    """Page ids 1 to ``num_pages - 1``, each with a count of owners.

    A page without owners is *blank*, or *cached*: its content has a name (a digest) and can be
    found again. Blank pages are given out first, lowest ids first, so that the table of a new
    sequence is a run of neighbours; then cached pages, the longest unused first.
    """

    def __init__(self, num_pages: int, num_groups: int) -> None:
        if num_pages < 2:
            raise ValueError(f"a cache of {num_pages} pages has none to give: page {NULL_PAGE} belongs to nobody")
        self.num_pages = num_pages  # NULL_PAGE included
        self.evictions = 0  # cached pages whose content was given up for room
        self.owners = [0] * num_pages
        self.names: dict[int, tuple[int, bytes]] = {}  # page -> (group, digest), of owned and cached pages
        self._found: list[dict[bytes, int]] = [{} for _ in range(num_groups)]  # digest -> page
        self._cached: OrderedDict[int, None] = OrderedDict()  # without owners, longest unused first
        self._returned: list[int] = []  # heap of blank pages below _fresh
        self._fresh = 1  # pages from here on were never given out

    @property
    def num_free(self) -> int:
        """Pages that ``take`` can give: blank and cached."""
        return self.num_pages - self._fresh + len(self._returned) + len(self._cached)

    def take(self, count: int) -> list[int]:
        """Give out pages, each with one owner. The caller has looked at ``num_free``."""
        if count > self.num_free:
            raise RuntimeError(f"{count} cache pages were taken, but only {self.num_free} are free")
        pages = []
        for _ in range(count):
            if self._returned:
                page = heapq.heappop(self._returned)
            elif self._fresh < self.num_pages:
                page = self._fresh
                self._fresh += 1
            else:
                page, _ = self._cached.popitem(last=False)
                self.forget(page)
                self.evictions += 1
            self.owners[page] = 1
            pages.append(page)
        return pages

    def share(self, page: int) -> None:
        """One more owner of a page that has owners or is cached."""
        if self.owners[page] == 0:
            del self._cached[page]
        self.owners[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One owner less each. Pages that should be evicted first come first."""
        for page in pages:
            owners = self.owners[page] - 1
            if owners < 0:
                raise RuntimeError(f"cache page {page} was released, but nobody owns it")
            self.owners[page] = owners
            if owners:
                continue
            if page in self.names:
                self._cached[page] = None
            else:
                heapq.heappush(self._returned, page)

    def find(self, group: int, digest: bytes) -> int | None:
        """The page of ``group`` whose content has this name."""
        return self._found[group].get(digest)

    def find_run(self, group: int, digests: Iterable[bytes]) -> list[int]:
        """The pages of these names, up to the first that nobody has."""
        found, pages = self._found[group], []
        for digest in digests:
            page = found.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def publish(self, group: int, digest: bytes, page: int) -> None:
        """Name the content of an owned page. If another page has the name already, that one keeps it."""
        if self._found[group].setdefault(digest, page) == page:
            self.names[page] = (group, digest)

    def forget(self, page: int) -> None:
        """Take the name of an owned page (if it has one): its content is about to change."""
        name = self.names.pop(page, None)
        if name is not None:
            group, digest = name
            del self._found[group][digest]

    def forget_all(self) -> None:
        """No content can be found any more; cached pages become blank."""
        self.names.clear()
        for found in self._found:
            found.clear()
        for page in self._cached:
            heapq.heappush(self._returned, page)
        self._cached.clear()

    def check(self) -> None:
        """Every page is owned, cached or blank, in exactly one way; names and index agree."""
        blank = [*self._returned, *range(self._fresh, self.num_pages)]
        free = blank + list(self._cached)
        assert len(set(free)) == len(free), "a page is free twice"
        assert self.owners[NULL_PAGE] == 0, "the null page has an owner"
        assert NULL_PAGE not in free, "the null page is free"
        assert sorted(free) == [p for p in range(1, self.num_pages) if self.owners[p] == 0], "free is not unowned"
        assert not any(page in self.names for page in blank), "a blank page has a name"
        assert all(page in self.names for page in self._cached), "a cached page has no name"
        index = {page: (group, digest) for group, found in enumerate(self._found) for digest, page in found.items()}
        assert index == self.names, "names and index disagree"
        assert sum(map(len, self._found)) == len(index), "a page has two names"
