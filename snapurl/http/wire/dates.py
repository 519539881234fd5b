"""The value of the Date header, formatted once per second."""

from __future__ import annotations

import time
from email.utils import formatdate


class DateClock:
    """Formats the time for Date when it is asked for and the second has changed. It needs no timer.

    `until_s` is the monotonic time until which `text` is valid.
    """

    __slots__ = ("text", "until_s")

    def __init__(self) -> None:
        self.text = ""
        self.until_s = 0.0

    def at(self, now_s: float) -> str:
        """Returns the value of Date now; `now_s` is the monotonic time."""
        if now_s >= self.until_s:
            unix_s = time.time()
            self.text = formatdate(unix_s // 1, usegmt=True)
            self.until_s = now_s + 1.0 - unix_s % 1
        return self.text
