"""The exceptions of the service, in one tree; `http/problems.py` turns them into responses and counts them.

An error says what is wrong and, where it helps, what to do next. Its text never contains a password, a statement or
a stack trace. `detail` is for operators and may name a shard; clients get `public_detail`. Normal outcomes between
the parts of the service ("moved", "busy", "taken") are results, not exceptions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one part of a request; `pointer` is an RFC 6901 JSON pointer (`/links/3/url`)."""

    pointer: str
    detail: str

    def __str__(self) -> str:
        """As one line names it: `rules/3/url: must begin with http://`."""
        return ": ".join(filter(None, (self.pointer.removeprefix("/"), self.detail)))


class SnapURLError(Exception):
    """The base of all errors.

    `slug` is the stable end of the RFC 9457 `type`, `status` the HTTP status, `cause` the label in the metrics.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self,
        detail: str = "",
        *,
        fields: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.fields = fields
        self.retry_after_s = retry_after_s
        self.cause = cause or self.slug

    def __str__(self) -> str:
        """What is said on the command line: what is wrong with each field, or the detail."""
        return "; ".join(map(str, self.fields)) or self.detail

    @property
    def public_detail(self) -> str:
        """What is said to a client over HTTP."""
        return self.detail


class ConfigError(SnapURLError):
    """The program cannot start with this configuration; the command line prints one line."""

    slug = "configuration"
    title = "The configuration cannot work"


class BadRequest(SnapURLError):
    status = 400
    slug = "bad-request"
    title = "The request cannot be read"


class Unauthorized(SnapURLError):
    status = 401
    slug = "unauthorized"
    title = "A valid API key is needed"


class Forbidden(SnapURLError):
    status = 403
    slug = "forbidden"
    title = "This API key may not do that"


class ForeignForm(SnapURLError):
    status = 403
    slug = "foreign-form"
    title = "The form comes from another site"


class NoAccess(SnapURLError):
    status = 403
    slug = "no-access"
    title = "You may not do that"


class RedirectLoop(SnapURLError):
    status = 403
    slug = "redirect-loop"
    title = "The link leads back to this service"


class PasswordNeeded(SnapURLError):
    status = 403
    slug = "password-needed"
    title = "The link asks for a password"

    def __init__(self, detail: str = "", *, has_form: bool = True) -> None:
        """`has_form` is whether it can be sent to this address."""
        super().__init__(detail)
        self.has_form = has_form


class PasswordWrong(SnapURLError):
    status = 403
    slug = "password-wrong"
    title = "The password is wrong"


class NotFound(SnapURLError):
    status = 404
    slug = "not-found"
    title = "There is no such link"


class SwitchedOff(SnapURLError):
    status = 404
    slug = "switched-off"
    title = "The link is switched off"


class NotYet(SnapURLError):
    status = 404
    slug = "not-yet"
    title = "The link does not lead anywhere yet"


class NoSuchKey(SnapURLError):
    status = 404
    slug = "no-such-key"
    title = "There is no such API key"


class NoSuchAccount(SnapURLError):
    status = 404
    slug = "no-such-account"
    title = "There is no such account"


class NoSuchAddress(SnapURLError):
    status = 404
    slug = "no-such-address"
    title = "There is no such address"


class MethodNotAllowed(SnapURLError):
    status = 405
    slug = "method-not-allowed"
    title = "This address does not take that method"

    def __init__(self, detail: str = "", *, allow: str = "") -> None:
        """`allow` lists the methods where they are not those of the routes."""
        super().__init__(detail)
        self.allow = allow


class RequestTimeout(SnapURLError):
    status = 408
    slug = "request-timeout"
    title = "The request did not arrive in time"


class AliasTaken(SnapURLError):
    status = 409
    slug = "alias-taken"
    title = "The alias is taken"


class NameTaken(SnapURLError):
    status = 409
    slug = "name-taken"
    title = "The name is taken"


class Gone(SnapURLError):
    status = 410
    slug = "gone"
    title = "The link is expired or deleted"


class VersionMismatch(SnapURLError):
    status = 412
    slug = "version-mismatch"
    title = "The link has changed since that version"


class TooLarge(SnapURLError):
    status = 413
    slug = "too-large"
    title = "The request is too large"


class UnsupportedMediaType(SnapURLError):
    status = 415
    slug = "unsupported-media-type"
    title = "The body must be application/json"


class Invalid(SnapURLError):
    status = 422
    slug = "invalid"
    title = "The request does not fit the schema"


class BlockedTarget(Invalid):
    """Each of `fields` is a target that is blocked; nothing is said of what else is."""

    slug = "blocked-target"
    title = "Links may not lead there"


class IdempotencyMismatch(SnapURLError):
    status = 422
    slug = "idempotency-mismatch"
    title = "This Idempotency-Key was used for another request"


class NoTitle(SnapURLError):
    """`cause` is `none` if the page has none, `refused` if it may not be fetched, else `failed`."""

    status = 422
    slug = "no-title"
    title = "No title was fetched"


class RateLimited(SnapURLError):
    status = 429
    slug = "rate-limited"
    title = "Too many requests"


class Unavailable(SnapURLError):
    """The shard or service that is needed does not answer, or there is too much to do; nothing was changed.

    `detail` is for operators, and clients are told nothing of it, unless it `is_public`.
    """

    status = 503
    slug = "unavailable"
    title = "The service cannot answer this now"

    def __init__(
        self,
        detail: str = "",
        *,
        is_public: bool = False,
        retry_after_s: float | None = None,
        cause: str = "",
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, cause=cause)
        self._is_public = is_public

    @property
    def public_detail(self) -> str:
        return self.detail if self._is_public else "temporarily unavailable: try again in a moment"


class OutcomeUnknown(SnapURLError):
    """The reply to a change was lost, and a query for its outcome failed: it may or may not have happened."""

    status = 503
    slug = "outcome-unknown"
    title = "The change may or may not have happened; read the link before you repeat it"


_PASSWORD = re.compile(r"(//[^\s:/@]*):[^\s@]*@")


def one_line(text: str) -> str:
    """Returns a message for the command line: in one line, and without the password of a URL that it quotes."""
    return _PASSWORD.sub(r"\1:…@", " ".join(text.split()))


def file_error(error: OSError) -> str:
    """Returns a message about the file that could not be used; of another error its type too."""
    if error.filename is None:
        return f"unexpected {type(error).__name__}: {error}"
    return f"cannot use {error.filename}: {error.strerror}"
