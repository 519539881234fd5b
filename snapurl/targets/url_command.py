"""The URL command: a program of the operator that is asked of each target whether a link may lead there.

It is started once per worker, without a shell, when the first URL is to be asked. Each question is one line on its
stdin, the URL in its stored form (ASCII, without spaces). Each answer is one line on its stdout, in the same order:
`allow`, or `refuse` with a reason for the client behind it if there is one. Its stderr is that of the service. It
should end when its stdin does.

Bounds: QUESTIONS_MAX are in the program at a time. A further one waits for its turn, ANSWER_S_MAX altogether. If no
answer comes within the timeout while one is due, or a line is no answer, or the program ends, it is killed; all
questions in it have failed, and so has each until it is started again, after RESTART_S_MIN to RESTART_S_MAX. What
has failed is refused for now (503) or allowed, as SNAPURL_URL_CHECK_FAILURE says. An answer counts for
VERDICT_S_MAX.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from snapurl.errors import Unavailable
from snapurl.parent_death import signal_at_parent_death
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task
from snapurl.telemetry.metrics import URL_CHECK_FAILURES, URL_CHECK_SECONDS, timing

log = logging.getLogger("snapurl.targets")

QUESTIONS_MAX = 64  # in the program at a time
ANSWER_S_MAX = 10.0  # for a question with its wait for a turn
ANSWER_BYTES_MAX = 1_024
REASON_CHARS_MAX = 200
VERDICTS_MAX = 10_000  # cached per worker, about 4 MB; the oldest is evicted
VERDICT_S_MAX = 60.0
RESTART_S_MIN, RESTART_S_MAX = 1.0, 30.0

OnFailure = Literal["refuse", "allow"]


@dataclass(frozen=True, slots=True)
class UrlVerdict:
    """What the program says of a URL; `reason` is for the client, "" if it gives none."""

    is_allowed: bool
    reason: str = ""


ALLOWED = UrlVerdict(True)
_SECONDS = timing(URL_CHECK_SECONDS)


class _Failed(Exception):
    """A question without an answer. `kind` is the label in the metrics."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class UrlCommand:
    """URL -> UrlVerdict, by the program `argv`. `clock` is monotonic."""

    def __init__(
        self, argv: Sequence[str], timeout_s: float, on_failure: OnFailure, clock: Callable[[], float]
    ) -> None:
        self._argv = argv
        self._timeout_s = timeout_s
        self._on_failure = on_failure
        self._clock = clock
        self._verdicts: OrderedDict[bytes, tuple[UrlVerdict, float]] = OrderedDict()
        self._turns = asyncio.Semaphore(QUESTIONS_MAX)
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._end: asyncio.Future[int] | None = None
        self._asked: deque[asyncio.Future[UrlVerdict]] = deque()
        self._is_asked = asyncio.Event()
        self._restart_s = RESTART_S_MIN
        self._not_before_s = 0.0
        self._fault: str | None = None

    @property
    def fault(self) -> str | None:
        """Why the program has not answered last, None if it has."""
        return self._fault

    async def verdict(self, url: str) -> UrlVerdict:
        """Returns what the program says, or has said of late. Raises Unavailable, unless failures are allowed."""
        key = blake2b(url.encode(), digest_size=16).digest()
        found = self._verdicts.get(key)
        if found is not None and self._clock() - found[1] < VERDICT_S_MAX:
            return found[0]
        began_s = self._clock()
        try:
            verdict = await self._answer(url)
        except _Failed as failure:
            return self._without_answer(failure)
        _SECONDS.observe(self._clock() - began_s)
        self._verdicts[key] = (verdict, self._clock())
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > VERDICTS_MAX:
            self._verdicts.popitem(last=False)
        return verdict

    async def close(self) -> None:
        """Ends the program."""
        if self._reader is not None:
            await cancel_and_wait(self._reader)

    def _without_answer(self, failure: _Failed) -> UrlVerdict:
        URL_CHECK_FAILURES.labels(failure.kind).inc()
        if self._fault is None:
            log.error("SNAPURL_URL_CHECK_COMMAND %s: URLs are %s", failure, _IN_WORDS[self._on_failure])
        self._fault = str(failure)
        if self._on_failure == "allow":
            return ALLOWED
        raise Unavailable(f"the URL check {failure}", cause="url-check", retry_after_s=5.0)

    async def _answer(self, url: str) -> UrlVerdict:
        """Returns the answer to one question. Raises _Failed."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX), self._turns:
                return await self._ask(url)
        except TimeoutError:
            raise _Failed("busy", f"has not come to a URL within {ANSWER_S_MAX:g} s") from None

    async def _ask(self, url: str) -> UrlVerdict:
        async with self._starting:
            process = self._process or await self._start()
        answer: asyncio.Future[UrlVerdict] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._is_asked.set()
        assert process.stdin is not None
        process.stdin.write(f"{url}\n".encode())
        return await answer

    async def _start(self) -> asyncio.subprocess.Process:
        if self._clock() < self._not_before_s:
            raise _Failed("down", "is down and is started again soon")
        self._not_before_s = self._clock() + self._restart_s
        self._restart_s = min(2 * self._restart_s, RESTART_S_MAX)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=ANSWER_BYTES_MAX,
                preexec_fn=signal_at_parent_death(signal.SIGTERM),
            )
        except OSError as error:
            raise _Failed("down", f"cannot be started: {error.strerror}") from None
        self._process = process
        self._end = asyncio.ensure_future(process.wait())
        self._end.add_done_callback(lambda _: self._is_asked.set())  # it may end while nobody asks
        self._reader = detached_task(self._read(process), "URL check")
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Reads answers until the program ends or fails; then it is killed, and its questions have failed."""
        failure = _Failed("down", "is down")
        try:
            while self._process is process:
                await self._is_asked.wait()
                verdict = await self._next(process)
                self._give(verdict)
                self._restart_s, self._fault = RESTART_S_MIN, None
        except _Failed as found:
            failure = found
        finally:
            self._process = None
            self._is_asked.clear()
            self._not_before_s = max(self._not_before_s, self._clock() + self._restart_s)
            while self._asked:
                if not (answer := self._asked.popleft()).done():
                    answer.set_exception(_Failed(failure.kind, str(failure)))
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _next(self, process: asyncio.subprocess.Process) -> UrlVerdict:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await process.stdout.readline()
        except TimeoutError:
            raise _Failed("timeout", f"has not answered within {self._timeout_s:g} s") from None
        except ValueError:
            raise _Failed("answer", "answers lines that are too long") from None
        except OSError:
            line = b""
        if not line:
            raise _Failed("down", "has ended")
        return _verdict_of(line)

    def _give(self, verdict: UrlVerdict) -> None:
        answer = self._asked.popleft()
        if not answer.done():
            answer.set_result(verdict)
        if not self._asked:
            self._is_asked.clear()


_IN_WORDS = {"refuse": "refused until it answers", "allow": "allowed unchecked until it answers"}


def _verdict_of(line: bytes) -> UrlVerdict:
    word, _, reason = line.decode("utf-8", "replace").strip().partition(" ")
    if word == "allow":
        return ALLOWED
    if word == "refuse":
        text = "".join(sign if sign.isprintable() else " " for sign in reason.strip())
        return UrlVerdict(False, text[:REASON_CHARS_MAX])
    raise _Failed("answer", "answers neither allow nor refuse")
