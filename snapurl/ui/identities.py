"""Who a browser is: the API key or the person of its session, or the person whom a trusted proxy names.

A session comes first: it was begun on purpose, also by somebody whom a proxy names. A header is believed only if
the peer of the connection is one of SNAPURL_PROXIES. The proxy must set it, or remove it, with each request,
whatever the browser has sent. A header that comes twice is not believed.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from typing import Any

from sanic import Request

from snapurl.accounts import AccountService
from snapurl.addresses import Clients
from snapurl.config import Settings
from snapurl.errors import NoAccess, NoSuchAccount, Unavailable
from snapurl.http.auth import Authenticator
from snapurl.http.context import Services
from snapurl.model import ApiKey
from snapurl.people import PROXY, Permit, Person, make_person
from snapurl.ui.sessions import KeyClaim, Session

log = logging.getLogger("snapurl.ui")

NAMED_MAX = 1_000  # people of whom a worker knows that it has logged who they are

_SEPARATOR = re.compile(r"\s*[,|]\s*")


class Identities:
    """Finds the caller of a request to the dashboard."""

    def __init__(self, settings: Settings) -> None:
        self._header = settings.login_header
        self._groups_header = settings.login_groups_header
        self._permits = settings.permits
        self._issuer = settings.oidc_issuer
        self._accounts_found: set[str] = set()
        self._logged: OrderedDict[str, None] = OrderedDict()

    async def of_session(self, session: Session, services: Services) -> ApiKey | None:
        """Returns the caller whose session this is; None if it has ended. Raises Unavailable."""
        if isinstance(session.who, Person):
            permit = session.who.permit(self._permits)
            return session.who.as_caller(permit) if permit and session.who.issuer == self._issuer else None
        return await _of_key(session.who, services.auth)

    async def of_headers(self, request: Request[Any, Any], services: Services) -> ApiKey | None:
        """Returns the person whom a trusted proxy names; None if it names nobody. Raises NoAccess."""
        clients: Clients = request.app.ctx.clients
        if not self._header or not clients.is_proxy(request.ip):
            return None
        named = request.headers.getall(self._header, ())
        groups = ",".join(request.headers.getall(self._groups_header, ())) if self._groups_header else ""
        subject = named[0].strip() if len(named) == 1 else ""
        person = make_person(PROXY, subject, subject, _SEPARATOR.split(groups.strip()))
        if person is None:
            return None
        caller = person.as_caller(await self.permit(person, services.accounts))
        if caller.key_id not in self._logged:
            log.info("%s is %r, as the proxy %s says", caller.key_id, subject, request.ip)
            self._logged[caller.key_id] = None
            if len(self._logged) > NAMED_MAX:
                self._logged.popitem(last=False)
        return caller

    async def permit(self, person: Person, accounts: AccountService) -> Permit:
        """Returns what the person may do. Raises NoAccess if nothing, or if the account does not exist."""
        permit = person.permit(self._permits)
        if permit is None:
            raise NoAccess(f"no group of {person.name} may use this dashboard")
        if permit.account not in self._accounts_found:
            try:
                self._accounts_found.add((await accounts.get(permit.account)).account_id)
            except NoSuchAccount:
                log.warning("SNAPURL_LOGIN_RIGHTS names the account %s, which does not exist", permit.account)
                raise NoAccess("the account of your group does not exist") from None
            except Unavailable:
                pass  # the outage of one shard must not lock people out of the others
        return permit


async def _of_key(claim: KeyClaim, auth: Authenticator) -> ApiKey | None:
    key = await auth.find_by_id(claim.key_id)
    return key if key is not None and claim.belongs_to(key) else None
