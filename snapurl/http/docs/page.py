"""/docs: the OpenAPI document as one self-contained page. Pure, and made once per process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from snapurl import errors
from snapurl.errors import ConfigError, SnapURLError
from snapurl.http.html import page, stylesheet

Json = Mapping[str, Any]

_STYLE = stylesheet("docs.css")

_QUICK_START = """# shorten
curl -H 'X-Api-Key: YOUR_KEY' -H 'Content-Type: application/json' \\
     -d '{{"url": "https://example.org/a/long/page", "alias": "spring-sale"}}' \\
     {url}/api/v1/links

# follow
curl -i {url}/spring-sale

# count
curl -H 'X-Api-Key: YOUR_KEY' {url}/api/v1/links/spring-sale/stats"""


def render(document: Json) -> str:
    """The page of an OpenAPI document."""
    info, url = document["info"], document["servers"][0]["url"]
    operations = _operations(document)
    body = (
        '<a class="skip" href="#main">Skip to the content</a>'
        f"<header><h1>{escape(info['title'])}</h1><p>{_inline(info['description'])} "
        f'Version {escape(info["version"])} · <a href="/openapi.json">openapi.json</a></p>'
        f"{_nav(operations)}</header>"
        f'<main id="main"><h2 id="start">Quick start</h2><pre>{escape(_QUICK_START.format(url=url))}</pre>'
        "<p>Send your key as <code>X-Api-Key</code> or as <code>Authorization: Bearer</code>.</p>"
        f"{''.join(_section(tag['name'], operations, document) for tag in document['tags'])}"
        f'<h2 id="schemas">Schemas</h2>{"".join(_schemas(document))}'
        f'<h2 id="problems">Problems</h2>{_problems()}</main>'
        "<footer>This page loads nothing from anywhere else.</footer>"
    )
    return page(f"{info['title']} API", _STYLE, body)


def _operations(document: Json) -> list[tuple[str, str, Json]]:
    """(method, path, operation), in the order of the tags."""
    tags = [tag["name"] for tag in document["tags"]]
    found = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return sorted(found, key=lambda item: tags.index(item[2]["tags"][0]))


def _nav(operations: Iterable[tuple[str, str, Json]]) -> str:
    items = "".join(
        f'<li><a href="#{operation["operationId"]}">{_method(method)}{escape(path)}</a></li>'
        for method, path, operation in operations
    )
    return f'<nav aria-label="Operations"><ul>{items}</ul></nav>'


def _section(tag: str, operations: Sequence[tuple[str, str, Json]], document: Json) -> str:
    articles = (_article(*item, document) for item in operations if tag in item[2]["tags"])
    return f'<h2 id="{escape(tag.lower())}">{escape(tag)}</h2>{"".join(articles)}'


def _article(method: str, path: str, operation: Json, document: Json) -> str:
    parts = [
        f'<article id="{operation["operationId"]}"><h3>{_method(method)}<code>{escape(path)}</code></h3>',
        f"<p>{_inline(operation['summary'])}. {_inline(operation.get('description', ''))}</p>",
    ]
    if parameters := operation.get("parameters"):
        rows = [
            (f"<code>{escape(item['name'])}</code>", item["in"], _inline(item["description"]))
            for item in parameters
        ]
        parts += ["<h4>Parameters</h4>", _table(("Name", "In", "Meaning"), rows)]
    if body := operation.get("requestBody"):
        schema = _resolve(body["content"]["application/json"]["schema"], document)
        parts += ["<h4>Body</h4>", _fields(schema), _example(schema)]
    rows = [
        (f"<code>{status}</code>", _inline(answer["description"]), _content(answer))
        for status, answer in operation["responses"].items()
    ]
    parts += ["<h4>Answers</h4>", _table(("Status", "Meaning", "Body"), rows), "</article>"]
    return "".join(parts)


def _schemas(document: Json) -> Iterator[str]:
    for name, schema in sorted(document["components"]["schemas"].items()):
        if "properties" in schema:
            about = _inline(schema.get("description", ""))
            head = f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3>'
            yield f"{head}<p>{about}</p>{_fields(schema)}</article>"


def _problems() -> str:
    rows = [
        (f"<code>{kind.slug}</code>", str(kind.status), escape(kind.title))
        for kind in sorted(_kinds(), key=_order)
    ]
    about = "The <code>type</code> of a problem is <code>urn:snapurl:problem:</code> and one of these."
    return f"<p>{about}</p>{_table(('Type', 'Status', 'Title'), rows)}"


def _kinds() -> list[type[SnapURLError]]:
    found = (item for item in vars(errors).values() if isinstance(item, type))
    return [item for item in found if issubclass(item, SnapURLError) and item is not ConfigError]


def _order(kind: type[SnapURLError]) -> tuple[int, str]:
    return kind.status, kind.slug


def _fields(schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(name)}</code>",
            f"{_type(field)}{'' if name in required else ', optional'}",
            _inline(_said(field, "description") or ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(("Field", "Type", "Meaning"), rows)


def _type(field: Json) -> str:
    """The type of a field in a few words, with links to other schemas."""
    if reference := field.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if choices := field.get("anyOf"):
        return " or ".join(_type(choice) for choice in choices if choice)
    if "enum" in field:
        return " ".join(f"<code>{escape(json.dumps(value))}</code>" for value in field["enum"])
    if "const" in field:
        return f"<code>{escape(json.dumps(field['const']))}</code>"
    if field.get("type") == "array":
        return f"array of {_type(field.get('items', {}))}"
    return escape(f"{field.get('type', 'anything')} {field.get('format', '')}".strip())


def _example(schema: Json) -> str:
    fields = {
        name: examples[0]
        for name, field in schema["properties"].items()
        if (examples := _said(field, "examples"))
    }
    return f"<pre>{escape(json.dumps(fields, indent=2))}</pre>" if fields else ""


def _said(field: Json, about: str) -> Any:
    """What a field's schema says about itself; of one that may be null the other choice says it."""
    return next((part[about] for part in (field, *field.get("anyOf", ())) if about in part), None)


def _content(answer: Json) -> str:
    return ", ".join(
        _type(body["schema"]) if "$ref" in body["schema"] else escape(media)
        for media, body in answer.get("content", {}).items()
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`rows` are trusted markup."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _resolve(schema: Json, document: Json) -> Json:
    name = schema["$ref"].rpartition("/")[2]
    found: Json = document["components"]["schemas"][name]
    return found


def _method(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span> '


def _inline(text: str) -> str:
    """Text with `code` in it, as markup."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
