"""Why a TLS connection failed."""

from __future__ import annotations

import ssl

import pytest

from snapurl.tls import tls_fault


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (10, "certificate has expired", "has a certificate that has expired"),
        (92, "CA cert does not include key usage extension", "CA cert does not include key usage extension"),
    ],
)
def test_a_refused_certificate_is_told_with_its_reason(code: int, message: str, said: str) -> None:
    """The line says why a certificate is refused, for rare reasons in the words of OpenSSL."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    assert said in str(tls_fault(error))
