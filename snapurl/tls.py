"""Why a TLS connection failed, in words without an address or a secret."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

# Codes of OpenSSL (`openssl verify` lists them).
_EXPIRED = 10
_NOT_YET_VALID = 9
_WRONG_HOST = (62, 64)  # a name, an address
_UNKNOWN_ISSUER = (18, 19, 20, 21)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Iterates over an error and its causes: clients wrap the exceptions of the socket."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def tls_fault(error: BaseException) -> str | None:
    """Returns the TLS failure, such as `has a certificate that has expired`; None for another kind of error."""
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"has a certificate that {_refusal(cause)}"
        if isinstance(cause, ssl.SSLError):
            return "does not speak TLS in the way that is asked of it"
        if isinstance(cause, ConnectionError) and "rejected SSL upgrade" in str(cause):
            return "does not speak TLS, which its DSN asks for"
    return None


def _refusal(error: ssl.SSLCertVerificationError) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "has expired"
    if code == _NOT_YET_VALID:
        return "is not valid yet: compare the clocks"
    if code in _WRONG_HOST:
        return "is for another host name than the one it is reached by"
    if code in _UNKNOWN_ISSUER:
        return "is not from the CA that is trusted"
    return f"is not accepted: {error.verify_message}"
