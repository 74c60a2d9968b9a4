"""What goes wrong, and where: ``PLACE:FAULT`` in the file that the environment variable CULPRIT names."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

FAULTS = ("raises", "hangs", "wrong", "leaks", "exits", "crashes")
LEAKED: list[Any] = []


def strike(place: str, value: Any) -> Any:
    """Do it, if it is for here; else, or if one can go on afterwards, ``value``."""
    try:
        with open(os.environ["CULPRIT"]) as file:
            where, _, fault = file.read().strip().rpartition(":")
    except (KeyError, OSError):
        return value
    if where != place:
        return value
    if fault == "raises":
        raise OSError("no such device")
    if fault == "hangs":
        time.sleep(10)
    elif fault == "wrong":
        return 7
    elif fault == "leaks":
        LEAKED.append([bytearray(1 << 20), os.open("/dev/null", os.O_RDONLY)])
        thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        thread.start()
    elif fault == "exits":
        os._exit(3)
    elif fault == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1)
    return value
