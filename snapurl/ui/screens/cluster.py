"""The screen of the cluster: the page, the same state for pages that ask now and then, and the stream of events."""

from __future__ import annotations

import json

from jinja2 import Environment
from sanic import HTTPResponse

from snapurl.model import Right
from snapurl.ui.call import Call
from snapurl.ui.cluster_live import ClusterLive
from snapurl.ui.cluster_view import ClusterView
from snapurl.ui.ring_picture import picture

PARTS = "cluster_parts.html"
SECTIONS = ("headline", "ring", "move", "shards", "findings", "service", "changes")
"""The parts of the page that change, each the macro of that name in PARTS and the element of that id."""


async def show(call: Call) -> HTTPResponse:
    view = await _live(call).view()
    return call.page("cluster.html", sections=sections_of(call.dashboard.templates, view), view=view)


async def state(call: Call) -> HTTPResponse:
    """The sections as JSON, as an event has them."""
    return call.context.json_response(json.loads(await _live(call).event()))


async def events(call: Call) -> HTTPResponse:
    """The stream of events; each is the state as a whole."""
    return call.stream(_live(call).events.watch(), Right.ADMIN)


def render_event(templates: Environment, view: ClusterView) -> str:
    """Returns the sections of a view as one line of JSON: id -> HTML."""
    return json.dumps(sections_of(templates, view), separators=(",", ":"), ensure_ascii=False)


def sections_of(templates: Environment, view: ClusterView) -> dict[str, str]:
    """Renders the parts of the page that change."""
    module = templates.get_template(PARTS).module
    drawn = picture(view.arcs, tuple(shard.name for shard in view.shards), view.dark)
    return {name: str(getattr(module, name)(view, drawn)) for name in SECTIONS}


def _live(call: Call) -> ClusterLive:
    live: ClusterLive = call.context.request.app.ctx.cluster_live
    return live
