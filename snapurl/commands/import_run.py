"""A run of an import: sends the links of a file to the service, and tells what becomes of each row.

It writes over the HTTP API, as `snapurl links` does, to `/api/v1/import`. So it runs wherever the file is, needs no
password of a shard, and its links pass the same checks, the same fence and the same invalidation as all others.

Theory of repeats. No state is kept between runs: one that was stopped or killed is begun again from the first row.
The service finds what is there already: a row with a code by its code and target, one without by an id that follows
from its place, its target and the API key. Nobody without the key can tell such a code from the target.

Calls run at the same time, so two rows with one code could overtake each other. A row waits while a call with its
code is under way: the first of them wins, in each run.
"""

from __future__ import annotations

import gc
import json
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, current_thread, main_thread
from typing import Any

import msgspec

from snapurl.commands.api import Api, ApiRefusal
from snapurl.imports.plan import ImportPlan, RowOutcome, visit_calls, why
from snapurl.imports.rows import Found, Row, RowRefused
from snapurl.imports.source import Source
from snapurl.keys import PlainKey

IMPORT = "/api/v1/import"
VISITS = "/api/v1/import/visits"
CALL_LINKS_MAX = 1_000
CALL_CHARS_MAX = 500_000  # of targets, titles and notes: a body must stay below what the service takes
CALLS_AT_ONCE = 4
ATTEMPTS = 7  # at a link whose shard does not answer
PAUSE_S = 0.25  # before the second attempt; it doubles with each
# The threshold of generation 0 of Python's garbage collector (default 700) during a run. Rows live until their call
# is answered, and are in no reference cycles.
YOUNG_OBJECTS = 100_000
SEEN_MAX = 500_000  # codes of a dry run among which rows with the same code are found


Answers = Mapping[int, Mapping[str, Any]]
"""What the service answers of links, by their places in a call; not of those that were created."""


@dataclass(slots=True)
class Result:
    """What became, or would become, of a row, and why.

    The service does not say the `code` of a link that was created.
    """

    row: Row
    found: Found | None
    outcome: RowOutcome
    reason: str = ""
    code: str = ""
    domain: str = ""


@dataclass(slots=True)
class _Call:
    """A call: all rows since the one before; those of `links` go to the service."""

    results: list[Result] = field(default_factory=list)
    links: list[tuple[Result, dict[str, Any]]] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    chars: int = 0
    answers: Future[Answers] | None = None

    def add(self, result: Result, body: dict[str, Any] | None) -> None:
        self.results.append(result)
        if body is not None:
            self.links.append((result, body))
            found = result.found
            assert found is not None
            self.chars += len(found.url) + len(found.title or "") + len(found.note or "")
            if found.code is not None:
                self.codes.add(found.code)

    @property
    def is_full(self) -> bool:
        return len(self.results) >= CALL_LINKS_MAX or self.chars >= CALL_CHARS_MAX


class ImportRun:
    """One run. `report` is called with the result of each row, in their order."""

    def __init__(self, api: Api, plan: ImportPlan, report: Callable[[Result], None]) -> None:
        self._api = api
        self._plan = plan
        self._report = report
        key = PlainKey.parse(api.key)  # what is none is refused by the API
        self._secret = key.secret_hash if key else api.key.encode()
        self._flying: deque[_Call] = deque()
        self._stopping = Event()
        self._seen: dict[tuple[str, str], int] = {}
        self.is_over = False  # every row has its result

    def run(self, source: Source) -> None:
        """Imports all rows. Ctrl-C ends it when the calls under way have their answers, which are reported.

        Raises ApiRefusal, FileRefused, KeyboardInterrupt.
        """
        with (
            ThreadPoolExecutor(CALLS_AT_ONCE, "import") as threads,
            _rare_collections(),
            self._interruptible(),
        ):
            try:
                self._run(source, threads)
            except BaseException:
                self._stopping.set()
                while self._flying:
                    with suppress(ApiRefusal):
                        self._settle()
                raise
        if self._stopping.is_set():
            raise KeyboardInterrupt
        self.is_over = True

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Lets the first Ctrl-C only stop the reading of rows, so that no answer is lost; the next one ends all."""
        if current_thread() is not main_thread():
            yield
            return

        def stop(*_: object) -> None:
            self._stopping.set()
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _run(self, source: Source, threads: ThreadPoolExecutor) -> None:
        call = _Call()
        for result, body in self._results(source):
            if self._stopping.is_set():
                break
            if body is not None and self._is_flying(result):
                self._begin(call, threads)
                call = _Call()
                self._settle_all()
            call.add(result, body)
            if call.is_full:
                self._begin(call, threads)
                call = _Call()
        else:
            self._begin(call, threads)
        self._settle_all()

    def _is_flying(self, result: Result) -> bool:
        """Whether a call with the code of this row is under way."""
        code = result.found.code if result.found else None
        if code is not None:
            for call in self._flying:
                if code in call.codes:
                    return True
        return False

    def _results(self, source: Source) -> Iterator[tuple[Result, dict[str, Any] | None]]:
        """Yields each row as a result, and the body of its link if the service is to decide."""
        for row in source.rows():
            try:
                found = source.link(row)
            except RowRefused as refusal:
                yield Result(row, None, RowOutcome.REFUSED, str(refusal)), None
                continue
            if skipped := self._plan.skipped(found):
                yield Result(row, found, RowOutcome.SKIPPED, skipped), None
            else:
                yield Result(row, found, RowOutcome.CREATED), self._plan.body(row, found, self._secret)

    # -- calls -----------------------------------------------------------------------------------------------

    def _begin(self, call: _Call, threads: ThreadPoolExecutor) -> None:
        while len(self._flying) >= CALLS_AT_ONCE:
            self._settle()
        if call.links:
            call.answers = threads.submit(self._send_all, call)
        self._flying.append(call)

    def _settle_all(self) -> None:
        while self._flying:
            self._settle()

    def _settle(self) -> None:
        """Waits for the oldest call, and reports its rows. Raises ApiRefusal."""
        call = self._flying.popleft()
        for place, answer in (call.answers.result() if call.answers else {}).items():
            self._take(call.links[place][0], answer)
        for result in call.results:
            self._report(result)

    def _take(self, result: Result, answer: Mapping[str, Any]) -> None:
        if answer["status"] >= 400:
            result.outcome, result.reason = RowOutcome.REFUSED, why(answer["error"])
            return
        result.code, result.domain = answer["code"], answer["domain"] or ""
        result.outcome = RowOutcome.CREATED if answer["status"] == 201 else RowOutcome.PRESENT
        if self._plan.is_dry and result.outcome is RowOutcome.CREATED:
            self._compare(result)

    def _compare(self, result: Result) -> None:
        """Finds a row of a dry run whose code an earlier row would have taken."""
        assert result.found is not None
        name, target = (result.domain, result.code), hash(result.found.url)
        if len(self._seen) < SEEN_MAX and self._seen.setdefault(name, target) == target:
            return
        if self._seen.get(name, target) != target:
            result.outcome, result.reason = RowOutcome.REFUSED, "another row before it has this code"

    def _send_all(self, call: _Call) -> Answers:
        """Sends the links of a call, and then the visits of those that are there. Raises ApiRefusal."""
        answers = self._send([body for _, body in call.links])
        if not self._plan.is_dry:
            refused = {place for place, answer in answers.items() if answer["status"] >= 400}
            kept = [link for place, link in enumerate(call.links) if place not in refused]
            for visits in visit_calls([(result.found, body) for result, body in kept if result.found]):
                self._send(visits, VISITS)
        return answers

    def _send(self, links: Sequence[dict[str, Any]], path: str = IMPORT) -> Answers:
        """Raises ApiRefusal once ATTEMPTS are used up."""
        answers: dict[int, Mapping[str, Any]] = {}
        left: Sequence[int] = range(len(links))
        why = ApiRefusal("a shard does not answer")
        for attempt in range(ATTEMPTS):
            if attempt and self._stopping.wait(PAUSE_S * 2**attempt):
                break
            try:
                found = self._post([links[place] for place in left], path)
            except ApiRefusal as refusal:
                if refusal.answered and refusal.answered not in (429, 500, 502, 503, 504):
                    raise
                why = refusal
                continue
            answers |= {left[place]: answer for place, answer in found.items() if answer["status"] < 500}
            left = [left[place] for place, answer in found.items() if answer["status"] >= 500]
            if not left:
                return answers
        raise ApiRefusal(f"{why.detail}; run it again to go on", why.answered)

    def _post(self, links: Sequence[dict[str, Any]], path: str) -> Answers:
        """Makes one call, or several if the service does not take as many links at once."""
        body: dict[str, Any] = {"links": links}
        if path == IMPORT:
            body |= {"dry_run": self._plan.is_dry, "only_exceptions": not self._plan.is_dry}
            if self._plan.account is not None:
                body["account"] = self._plan.account
        try:
            found = self._api.call("POST", path, _encoded(body))
            places = found.get("places")
            places = range(len(links)) if places is None else places
            return dict(zip(places, found["results"], strict=True))
        except ApiRefusal as refusal:
            is_large = refusal.answered == 413 or (
                refusal.answered == 422 and refusal.detail.startswith("links:")
            )
            if not is_large or len(links) == 1:
                raise
            half = len(links) // 2
            rest = self._post(links[half:], path)
            return {
                **self._post(links[:half], path),
                **{half + place: answer for place, answer in rest.items()},
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ApiRefusal("the service does not answer as SnapURL does: is SNAPURL_URL right?") from None


@contextmanager
def _rare_collections() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Returns the body as JSON. Half a character, which a source may have, becomes what the service refuses."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body, default=datetime.isoformat).encode()
