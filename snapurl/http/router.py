"""The router: Sanic's, and what stands behind the code of a link leads to that link.

A route `/<code>/<rest:path>` would take addresses from the API: Sanic lets a route with one slash more at its end be
found only if no other route matches.
"""

from __future__ import annotations

import re
from typing import Any

from sanic.exceptions import NotFound
from sanic.models.handler_types import RouteHandler
from sanic.router import Router
from sanic_routing.route import Route

from snapurl.codes import is_reserved

_BEHIND_CODE = re.compile(r"(/[^/]+)/.+", re.DOTALL)


class LinkRouter(Router):
    """Finds the route of `/{code}` for `/{code}/…` where no other route does and no word of the service begins it."""

    def get(  # type: ignore[override]  # Sanic's is wrapped in a cache
        self, path: str, method: str, host: str | None
    ) -> tuple[Route, RouteHandler, dict[str, Any]]:
        """Returns the route, its handler and its arguments. Raises NotFound and MethodNotAllowed of Sanic."""
        try:
            return super().get(path, method, host)
        except NotFound:
            behind = _BEHIND_CODE.fullmatch(path)
            if behind is None:
                raise
            found = super().get(behind[1], method, host)
            if is_reserved(found[2].get("code", "api")):
                raise
            return found
