"""Children that end when their parent does, also when it is killed, as far as the platform lets.

Linux can send a process a signal at the death of the thread that started it; other systems cannot, and there
the next start of the same home finds what was left and ends it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def ending_with_parent(signum: int) -> Callable[[], None] | None:
    """A `preexec_fn` that makes the child get `signum` when this process dies; None where there is no way.

    Start the child from a thread that lives as long as the process: it is the thread's death that counts.
    """
    if _LIBC is None:
        return None
    libc, parent = _LIBC, os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above: nobody would ever send the signal
            os._exit(1)

    return tie
