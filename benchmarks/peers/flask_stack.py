"""The stack that SnapURL was first described with: Flask under gunicorn and gevent, Redis, and four PostgreSQL
databases chosen by SHA-256(code) modulo 4.

It follows the good practice of these tools: everything cooperates with gevent, and connections are pooled. A
redirect needs one Redis pipeline for the address and the click. A miss reads one database and is cached. A create
is one INSERT, on disk before the response. It cannot reshard: with another number of databases nearly every code
belongs to another database. It counts clicks in Redis only, which is to its advantage here.

gunicorn runs it as `benchmarks.peers.flask_stack:make_app()`. PEER_DATABASES (DSNs separated by spaces) and
PEER_REDIS_URL hold the addresses.
"""

from __future__ import annotations

import os
import secrets
import string
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request
from psycopg import errors
from psycopg_pool import ConnectionPool
from redis import Redis

from benchmarks.peers.modulo import shard_of

ALPHABET = string.ascii_letters + string.digits
CODE_LENGTH = 7
CACHED_S = 300
POOL_CONNECTIONS = 8
ATTEMPTS = 5
URL_CHARS_MAX = 8192


class Links:
    """The databases and the cache."""

    def __init__(self, dsns: list[str], redis_url: str) -> None:
        self._pools = [
            ConnectionPool(dsn, min_size=1, max_size=POOL_CONNECTIONS, kwargs={"autocommit": True}, open=True)
            for dsn in dsns
        ]
        self._redis = Redis.from_url(redis_url, decode_responses=True)

    def _pool(self, code: str) -> Any:
        return self._pools[shard_of(code, len(self._pools))]

    def follow(self, code: str) -> str | None:
        """Returns the address and counts the click. Returns None if there is no such link."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(f"peer:url:{code}")
            pipe.hincrby("peer:clicks", code, 1)
            url: str | None = pipe.execute()[0]
        if url is not None:
            return url
        with self._pool(code).connection() as connection:
            row = connection.execute("SELECT url FROM links WHERE code = %s", (code,)).fetchone()
        if row is None:
            self._redis.hdel("peer:clicks", code)
            return None
        self._redis.set(f"peer:url:{code}", row[0], ex=CACHED_S)
        return str(row[0])

    def create(self, url: str) -> str:
        """Creates a link. Returns its code."""
        for _ in range(ATTEMPTS):
            code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
            try:
                with self._pool(code).connection() as connection:
                    connection.execute("INSERT INTO links (code, url) VALUES (%s, %s)", (code, url))
            except errors.UniqueViolation:
                continue
            self._redis.set(f"peer:url:{code}", url, ex=CACHED_S)
            return code
        raise RuntimeError("no free code was found")


def make_app() -> Flask:
    """Returns the WSGI app."""
    app = Flask("peer")
    links = Links(os.environ["PEER_DATABASES"].split(), os.environ["PEER_REDIS_URL"])

    def follow(code: str) -> Response:
        url = links.follow(code)
        if url is None:
            return Response("no such link\n", 404, mimetype="text/plain")
        return Response(b"", 302, {"Location": url, "Cache-Control": "private, max-age=0"})

    def create() -> tuple[Response, int]:
        body = request.get_json(silent=True)
        url = body.get("url") if isinstance(body, dict) else None
        if not isinstance(url, str) or len(url) > URL_CHARS_MAX or not _is_web(url):
            return jsonify(error="url must be an http or https address"), 422
        code = links.create(url)
        return jsonify(code=code, short_url=f"{request.host_url}{code}", url=url), 201

    app.add_url_rule("/<code>", view_func=follow, methods=["GET"])
    app.add_url_rule("/api/v1/links", view_func=create, methods=["POST"])
    return app


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
