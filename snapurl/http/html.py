"""HTML for browsers: the start page, error pages, and the files that browsers request unasked.

All pages are self-contained: no script, font or image from elsewhere, which their content security policy enforces.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files

from snapurl.errors import PasswordNeeded, PasswordWrong, SnapURLError

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

# Browsers hold a redirect that follows a form to `form-action` too, and the link may lead anywhere.
_FORM_HEADERS = {
    **PAGE_HEADERS,
    "content-security-policy": PAGE_HEADERS["content-security-policy"].replace(
        "form-action 'none'", "form-action 'self' http: https:"
    ),
}
_FORM = (
    '<form method="post"><input type="password" name="password" maxlength="200" required autofocus '
    'autocomplete="off" aria-label="Password"><button>Open</button></form>'
)

ROBOTS = {
    # `$` and `/` keep links whose codes begin alike allowed.
    "allow": "User-agent: *\nDisallow: /api/\nDisallow: /docs$\nDisallow: /docs/\nDisallow: /openapi.json$\n"
    "Disallow: /ui$\nDisallow: /ui/\n",
    "deny": "User-agent: *\nDisallow: /\n",
}
"""/robots.txt by setting. Sites show a preview of a short link only if their crawler may follow it."""

FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<circle cx="16" cy="16" r="11" fill="none" stroke="#2563eb" stroke-width="4"/>'
    '<circle cx="16" cy="5" r="4" fill="#16a34a"/><circle cx="27" cy="16" r="4" fill="#d97706"/>'
    '<circle cx="16" cy="27" r="4" fill="#dc2626"/><circle cx="5" cy="16" r="4" fill="#7c3aed"/></svg>'
)


_STYLE = files("snapurl.http").joinpath("pages.css").read_text("utf-8")


_LOGO = FAVICON.replace("<svg ", '<svg aria-hidden="true" ', 1)


def page(title: str, body: str) -> str:
    """Returns an HTML document. `title` is plain text, `body` is trusted markup."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="/favicon.ico" type="image/svg+xml">'
        f"<style>{_STYLE}</style></head><body>{_LOGO}{body}</body></html>\n"
    )


def refusal_page(refusal: SnapURLError) -> str:
    """Returns the page of a refusal: its title and a sentence, or a form if a password is missing or wrong."""
    below = _FORM if _asks(refusal) else f"<p>{escape(_sentence(refusal))}</p>"
    return page(refusal.title, f"<main><h1>{escape(refusal.title)}</h1>{below}</main>")


def page_headers(refusal: SnapURLError) -> dict[str, str]:
    """Returns the headers of that page."""
    return _FORM_HEADERS if _asks(refusal) else PAGE_HEADERS


def _asks(refusal: SnapURLError) -> bool:
    return isinstance(refusal, PasswordWrong) or (isinstance(refusal, PasswordNeeded) and refusal.has_form)


def home_page(version: str) -> str:
    """Returns the start page."""
    return page(
        "SnapURL",
        f"<main><h1>SnapURL</h1><p>Short links, counted. Version {escape(version)}.</p>"
        '<p><a href="/docs">How to use the API</a></p></main>',
    )


def _sentence(refusal: SnapURLError) -> str:
    detail = refusal.public_detail
    if detail == refusal.title:
        return f"Please check the address. (Status {refusal.status})"
    return f"{detail[:1].upper()}{detail[1:]}. (Status {refusal.status})"
