"""Ends children when their parent dies, also when it is killed, where the platform can do so.

Linux can send a process a signal when the thread that started it dies (`PR_SET_PDEATHSIG`). Other systems cannot;
there the next start with the same home directory finds leftover processes and ends them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def signal_at_parent_death(signum: int) -> Callable[[], None] | None:
    """Returns a `preexec_fn` that has the child get `signum` when this process dies; None if unsupported.

    Start the child from a thread that lives as long as the process: the signal is sent when that thread dies.
    """
    if _LIBC is None:
        return None
    libc, parent = _LIBC, os.getpid()

    def set_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl: the signal would never be sent
            os._exit(1)

    return set_signal
