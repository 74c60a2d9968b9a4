"""How many tokens a step may have: the setting, or fewer for a while after a step ran out of memory."""

from __future__ import annotations

__all__ = ["StepBudget"]

PATIENCE = 32  # steps that must go well before larger ones are tried


class StepBudget:
    """``most`` tokens, halved by each loss and doubled by each PATIENCE steps without one."""

    def __init__(self, most: int) -> None:
        self.most = self.now = most
        self._well = 0  # steps since the last change

    def shrink(self, lost: int) -> None:
        """A step of so many tokens was too large."""
        self.now, self._well = max(1, min(self.now, lost) // 2), 0

    def grow(self) -> None:
        """A step went well."""
        if self.now < self.most:
            self._well += 1
            if self._well >= PATIENCE:
                self.now, self._well = min(self.most, 2 * self.now), 0
