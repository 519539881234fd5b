"""The selection of a list: which links are ticked, what to do with them, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snapurl.codes import is_key
from snapurl.errors import SnapURLError
from snapurl.link_batches import BatchPage, Result
from snapurl.model import Link
from snapurl.ui.forms import sentence, split_words

PICK = "pick-"  # and a code: the name of the checkbox of a link
FILTERS = ("q", "state", "tag", "sort")
"""The parameters of the list, in its address and in every form on it."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a batch does, in words: to ask with, and to say afterwards of one link and of several."""

    ask: str
    one: str
    several: str

    def said(self, count: int) -> str:
        return self.one if count == 1 else self.several.format(f"{count:,}")


ACTIONS = {
    "tag": Action("Add the tags to", "1 link has the tags.", "{} links have the tags."),
    "untag": Action("Remove the tags from", "1 link is without the tags.", "{} links are without the tags."),
    "enable": Action("Switch on", "1 link is switched on.", "{} links are switched on."),
    "disable": Action(
        "Switch off",
        "1 link is switched off: visitors get “not found”.",
        "{} links are switched off: visitors get “not found”.",
    ),
    "delete": Action(
        "Delete",
        "1 link is deleted: visitors get “gone”.",
        "{} links are deleted: visitors get “gone”.",
    ),
    "restore": Action("Restore", "1 link is back.", "{} links are back."),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What the form of the list says; `codes` are keys. `is_all`: all of the list are meant, not these."""

    action: str
    tags: str
    codes: tuple[str, ...]
    is_all: bool

    @classmethod
    def of_form(cls, form: Mapping[str, str]) -> Selection:
        """Returns what was ticked, in the order of the list. What is no key is left out."""
        ticked = [name.removeprefix(PICK) for name in form if name.startswith(PICK)]
        codes = dict.fromkeys([*form.get("codes", "").split(), *ticked])
        return cls(
            form.get("action", ""), form.get("tags", "").strip(), tuple(filter(is_key, codes)), "all" in form
        )

    def body(self) -> dict[str, Any]:
        """Returns the body of a batch, as the API takes it, but for the links."""
        tags = {"tags": split_words(self.tags)} if self.action in ("tag", "untag") else {}
        return {"action": self.action, **tags}


@dataclass(frozen=True, slots=True)
class RefusedLink:
    """A link that was left as it was, and why."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What a batch did: the links that are now as they were to be, and the others.

    `before` is how many the batches before it did. `cursor` is where the next batch begins, "" if none is left.
    """

    action: str
    done: tuple[str, ...]
    refused: tuple[RefusedLink, ...]
    before: int = 0
    cursor: str = ""
    is_complete: bool = True

    @classmethod
    def of(cls, action: str, results: Sequence[Result]) -> BatchOutcome:
        return cls(
            action,
            tuple(code for code, outcome in results if isinstance(outcome, Link)),
            tuple(
                RefusedLink(code, sentence(outcome))
                for code, outcome in results
                if isinstance(outcome, SnapURLError)
            ),
        )

    @classmethod
    def of_page(cls, action: str, page: BatchPage, before: int, cursor: str) -> BatchOutcome:
        part = cls.of(action, page.results)
        return cls(action, part.done, part.refused, before, cursor, not page.silent)

    @property
    def said(self) -> str:
        """The result in one sentence; "" if nothing was done."""
        count = self.before + len(self.done)
        return ACTIONS[self.action].said(count) if count else ""

    @property
    def undo(self) -> str:
        """The codes that a restore would bring back, as a field of a form holds them."""
        return " ".join(self.done) if self.action == "delete" else ""
