"""TargetPolicy: the targets of a link, whichever field has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapurl.errors import BlockedTarget
from snapurl.model import LinkFields
from snapurl.targets.blocked_hosts import BlockedHosts
from snapurl.targets.policy import TargetPolicy

GOOD = "https://good.example/"


@pytest.fixture(scope="module")
async def policy(tmp_path_factory: pytest.TempPathFactory) -> TargetPolicy:
    file: Path = tmp_path_factory.mktemp("targets") / "blocked"
    file.write_text("bad.example\n192.0.2.7\n2001:db8::1\nmünchen.example\n")
    hosts = BlockedHosts(file, lambda: 0.0, lambda: None)  # type: ignore[arg-type,return-value]
    await hosts.check()
    return TargetPolicy(hosts)


@pytest.mark.parametrize(
    "url",
    [
        "https://bad.example",
        "http://www.bad.example:8080/x",
        "http://bad.example./",
        "http://bad.example?x",
        "http://bad.example#x",
        "http://192.0.2.7/",
        "http://[2001:db8::1]:8080/x",
        "http://[2001:db8::1]/",
        "https://a.xn--mnchen-3ya.example/",
    ],
)
async def test_every_spelling_of_a_blocked_host_is_refused(policy: TargetPolicy, url: str) -> None:
    """A port, a path, a final dot or a name below it make no difference."""
    with pytest.raises(BlockedTarget):
        await policy.check(LinkFields(url))
    assert policy.blocked(LinkFields(url)) == [url]


async def test_each_blocked_target_is_named(policy: TargetPolicy) -> None:
    """Target, target after the expiry and targets of rules are all looked at; each is named by its field."""
    rules = '[{"if":{"os":["ios"]},"url":"https://good.example/"},{"if":{"os":["ios"]},"url":"http://bad.example/"}]'
    link = LinkFields("https://x.bad.example/", expired_url="http://192.0.2.7/", rules=rules)
    with pytest.raises(BlockedTarget) as caught:
        await policy.check(link)
    assert [field.pointer for field in caught.value.fields] == ["/url", "/expired_url", "/rules/1/url"]
    good = LinkFields(GOOD, expired_url="https://notbad.example/")
    assert (await policy.refusals([good, link, good])).keys() == {1}
    await TargetPolicy().check(link)
