"""People: who logs in to the dashboard without an API key, and what their groups may do. Pure.

Theory. An OpenID provider or a proxy in front says who somebody is: an issuer, a subject that never changes, a
name, and groups. SNAPURL_LOGIN_RIGHTS says what a group may do with the links of which account. A person has no
links: they belong to the account, and stay when the person leaves.

The rest of the service knows API keys alone. So a person becomes a value of `ApiKey` that is stored nowhere and has
no secret: rights, limits and lists need no second way. Its id is derived from the issuer and the subject, so
`created_by` and `changed_by` of a link name the same person for ever, and no key has such an id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from snapurl.codes import ALPHABET
from snapurl.model import ApiKey, Right, is_name

ID_PREFIX = "usr_"
ID_CHARS = 16  # of base 62 after the prefix: no two people get the same by accident
SUBJECT_CHARS_MAX = 255  # as OpenID Connect has it
GROUPS_MAX = 1_000  # that are read of one person
ANYBODY = "*"

_ACCOUNT = re.compile("(acc_)?[0-9A-Za-z]{10}")
_SINCE = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Permit:
    """What the people of a group may do, with the links of which account. The group ANYBODY has everybody in it."""

    group: str
    rights: frozenset[Right]
    account: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, as the issuer knows them. The issuer is an OpenID provider's URL, or PROXY."""

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]

    @property
    def person_id(self) -> str:
        """The same for ever, and of this person alone."""
        digest = sha256(f"{len(self.issuer)}:{self.issuer}{self.subject}".encode()).digest()
        number, characters = int.from_bytes(digest), []
        for _ in range(ID_CHARS):
            number, place = divmod(number, len(ALPHABET))
            characters.append(ALPHABET[place])
        return ID_PREFIX + "".join(characters)

    def permit(self, permits: Sequence[Permit]) -> Permit | None:
        """Returns the first permit for one of the person's groups; None if there is none."""
        return next((each for each in permits if each.group in (ANYBODY, *self.groups)), None)

    def as_caller(self, permit: Permit) -> ApiKey:
        """Returns the person as the rest of the service knows its clients."""
        return ApiKey(self.person_id, self.name, b"", permit.rights, "", _SINCE, None, permit.account)


PROXY = "proxy"


def make_person(issuer: str, subject: str, name: str, groups: Collection[str]) -> Person | None:
    """Returns a person; None if the subject cannot be one. A name that cannot be shown is left out."""
    if not 0 < len(subject) <= SUBJECT_CHARS_MAX or not subject.isprintable() or not subject.strip():
        return None
    shown = next((text for text in (name, subject) if is_name(text)), subject[:20])
    return Person(issuer, subject, shown, tuple(groups)[:GROUPS_MAX])


def is_person(caller: ApiKey) -> bool:
    """Whether this is a person, and no key that is stored."""
    return caller.key_id.startswith(ID_PREFIX)


def parse_permits(text: str) -> tuple[Permit, ...]:
    """Parses a SNAPURL_LOGIN_RIGHTS value. Raises ValueError with one line."""
    return tuple(_parse_permit(item.strip()) for item in text.split(";") if item.strip())


def _parse_permit(item: str) -> Permit:
    group, _, granted = item.rpartition("=")  # the name of a group may be an LDAP name, with several `=`
    rights, at, account = granted.partition("@")
    if not group.strip() or not at:
        raise ValueError(
            f"{item[:100]!r} must be written group=rights@account, such as editors=create,read@acc_…"
        )
    names = [name.strip() for name in rights.split(",")]
    known = ", ".join(right.value for right in Right)
    if unknown := [name for name in names if name not in set(Right)]:
        raise ValueError(f"{unknown[0][:100]!r} is not a right: a right is one of {known}")
    if not _ACCOUNT.fullmatch(account.strip()):
        raise ValueError(
            f"{account.strip()[:100]!r} is not the id of an account: `snapurl accounts list` shows them"
        )
    return Permit(group.strip(), frozenset(map(Right, names)), account.strip())
