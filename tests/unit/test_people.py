"""People: their ids, and what their groups may do."""

from __future__ import annotations

import re

import pytest

from snapurl.model import Right
from snapurl.people import PROXY, Person, is_person, make_person, parse_permits

ACCOUNT = "acc_7Fq2xWm0bZ"


def test_a_person_has_one_id() -> None:
    """The id of a person depends on the issuer and the subject alone, and on both."""
    ann = Person("https://id.example.org", "17", "Ann", ("staff",))
    assert re.fullmatch("usr_[0-9A-Za-z]{16}", ann.person_id)
    assert ann.person_id == Person("https://id.example.org", "17", "Ann B.", ()).person_id
    others = (Person("https://id.example.org", "18", "", ()), Person("https://id.example.org1", "7", "", ()))
    assert len({ann.person_id, *(other.person_id for other in others)}) == 3


def test_the_first_entry_of_a_persons_groups_counts() -> None:
    """What a person may do is said by the first entry that names one of their groups, or everybody."""
    permits = parse_permits(
        f"cn=root,dc=x=admin@{ACCOUNT}; Web Team=create, read@{ACCOUNT};*=read@{ACCOUNT};"
    )
    permit = Person(PROXY, "ann", "ann", ("Web Team", "cn=root,dc=x")).permit(permits)
    assert permit is not None
    caller = Person(PROXY, "ann", "Ann", ()).as_caller(permit)
    assert (caller.is_admin, caller.account, caller.name, is_person(caller)) == (True, ACCOUNT, "Ann", True)
    team = Person(PROXY, "ben", "ben", ("Web Team",)).permit(permits)
    assert team is not None and team.rights == {Right.CREATE, Right.READ}
    anybody = Person(PROXY, "eve", "eve", ("web team",)).permit(permits)
    assert anybody is not None and anybody.rights == {Right.READ}
    assert Person(PROXY, "eve", "eve", ()).permit(permits[:2]) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("staff", "must be written group=rights@account"),
        ("=read@acc_7Fq2xWm0bZ", "must be written group=rights@account"),
        ("staff=read", "must be written group=rights@account"),
        ("staff=write@acc_7Fq2xWm0bZ", "'write' is not a right"),
        ("staff=@acc_7Fq2xWm0bZ", "'' is not a right"),
        ("staff=read@News", "'News' is not the id of an account"),
    ],
)
def test_what_groups_may_do_is_checked(text: str, reason: str) -> None:
    """An entry that cannot be meant is refused with the reason."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_permits(text)


def test_a_subject_is_bounded() -> None:
    """Nothing is a person that could not be logged and shown."""
    for subject in ("", " ", "x" * 256, "a\nb", "a\u202eb"):
        assert make_person(PROXY, subject, "Ann", ()) is None
    named = make_person(PROXY, "x" * 255, "x\0", ())
    assert named is not None and named.name == "x" * 20
