"""The static files of the dashboard, which need no session."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import NoSuchAddress
from snapurl.ui.assets import IMMUTABLE
from snapurl.ui.call import Call


async def file(call: Call) -> HTTPResponse:
    """A static file: kept for ever under the address of this version, and not at all under any other."""
    asset = call.dashboard.assets.get(call.path["name"])
    if asset is None:
        raise NoSuchAddress("nothing is at this address")
    is_current = call.path["version"] == call.dashboard.assets.version
    headers = {
        **call.context.headers,
        "cache-control": IMMUTABLE if is_current else "no-cache",
        "vary": "Accept-Encoding",
    }
    if "gzip" in call.context.request.headers.get("accept-encoding", ""):
        return HTTPResponse(asset.packed, 200, headers | {"content-encoding": "gzip"}, asset.media)
    return HTTPResponse(asset.plain, 200, headers, asset.media)
