"""The router: Sanic's, and what stands behind the code of a link leads to that link.

A route `/<code>/<rest:path>` would do the same, but it would also take `/api/v1/links/` from `/api/v1/links`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from sanic.exceptions import NotFound
from sanic.models.handler_types import RouteHandler
from sanic.router import Router
from sanic_routing.route import Route

from snapurl.codes import is_reserved

_BEHIND_CODE = re.compile(r"/([^/]+)/.+", re.DOTALL)


class LinkRouter(Router):
    """Finds the route of `/{code}` for `/{code}/…` where no other route does and no word of the service begins
    it."""

    def get(  # type: ignore[override]  # Sanic's is wrapped in a cache
        self, path: str, method: str, host: str | None
    ) -> tuple[Route, RouteHandler, dict[str, Any]]:
        """Returns the route, its handler and its arguments. Raises NotFound and MethodNotAllowed of Sanic."""
        try:
            return super().get(path, method, host)
        except NotFound:
            behind = _BEHIND_CODE.fullmatch(path)
            if behind is None or is_reserved(unquote(behind[1])):
                raise
            found = super().get(f"/{behind[1]}", method, host)
            if "code" not in found[2]:
                raise
            return found
