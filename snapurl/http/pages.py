"""What a browser sees besides redirects and /docs: the start page, refusals, the files it asks for by itself.

All self-contained: no script, no font, no picture from anywhere else, and a policy that says so.
"""

from __future__ import annotations

from html import escape

from snapurl.errors import SnapURLError

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

ROBOTS = "User-agent: *\nDisallow: /\n"

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<circle cx="16" cy="16" r="11" fill="none" stroke="#2563eb" stroke-width="4"/>'
    '<circle cx="16" cy="5" r="4" fill="#16a34a"/><circle cx="27" cy="16" r="4" fill="#d97706"/>'
    '<circle cx="16" cy="27" r="4" fill="#dc2626"/><circle cx="5" cy="16" r="4" fill="#7c3aed"/></svg>'
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5a6676; --page: #fbfbfa; --line: #d9dde3; --mark: #1d4ed8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #9aa5b4; --page: #14181f; --line: #303845; --mark: #8ab4ff }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.6 system-ui, sans-serif }
a { color: var(--mark) }
"""

_CENTRED = """
main { min-height: 100vh; display: grid; place-content: center; padding: 2rem; box-sizing: border-box }
h1 { font-size: 1.5rem; margin: 0 } p { margin: .5rem 0 0; color: var(--dim); max-width: 34rem }
"""


def page(title: str, style: str, body: str) -> str:
    """A whole HTML document; `title` is text, `style` and `body` are trusted markup."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="/favicon.ico" type="image/svg+xml">'
        f"<style>{STYLE}{style}</style></head><body>{body}</body></html>\n"
    )


def refusal_page(refusal: SnapURLError) -> str:
    """A refusal in two friendly lines."""
    return page(
        refusal.title,
        _CENTRED,
        f"<main><h1>{escape(refusal.title)}</h1><p>{escape(_sentence(refusal))}</p></main>",
    )


def home_page(version: str) -> str:
    """The start page."""
    return page(
        "SnapURL",
        _CENTRED,
        f"<main><h1>SnapURL</h1><p>Short links, counted. Version {escape(version)}.</p>"
        '<p><a href="/docs">How to use the API</a></p></main>',
    )


def _sentence(refusal: SnapURLError) -> str:
    if refusal.detail == refusal.title:
        return f"Please check the address. (Status {refusal.status})"
    return f"{refusal.detail[:1].upper()}{refusal.detail[1:]}. (Status {refusal.status})"
