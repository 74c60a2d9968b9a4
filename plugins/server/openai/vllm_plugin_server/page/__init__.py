"""The page at ``/``: what runs, how it is doing, and a small chat. Plain files, which ask nobody but this server.

The files hold nothing about the model, so they need no key; what they show is asked for with one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["FILES", "TYPES"]

FILES: Final = Path(__file__).with_name("files")
TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
