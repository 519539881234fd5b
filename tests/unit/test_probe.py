"""The probe of health checks: it is cheap, and says whether a program is ready."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from snapurl.probe import fault, own_url


def modules(code: str) -> set[str]:
    """Returns the modules that a Python has loaded after it has run `code`."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(said.stdout.split())


def test_the_probe_imports_a_socket_and_nothing_else() -> None:
    """A health check starts none of the service: it loads `socket` and its own module only."""
    assert modules("import snapurl.probe") - modules("import socket") == {"snapurl", "snapurl.probe"}


@contextmanager
def answering(*parts: bytes) -> Iterator[str]:
    """Yields the URL of a server that answers one request in these parts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4_096)
                for part in parts:
                    connection.sendall(part)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health/ready"
        thread.join()


def test_the_probe_says_what_is_wrong() -> None:
    """Only 200 is ready; any other answer, none, or an answer of something else is a line that says so."""
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        assert fault(url) == ""
    with answering(b"HTTP/1.1 5", b"03 Service Unavailable\r\n\r\n", b'{"status":\n "down"}') as url:
        assert fault(url) == '/health/ready: 503 {"status": "down"}'
    with answering(b"SSH-2.0-x\r\n") as url:
        assert fault(url)
    with answering() as url:
        assert fault(url) == "/health/ready: no answer"
    assert "no answer (Connection refused)" in fault(url)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "https://x:1/", "http://x", "http://x:y/"])
def test_a_url_that_cannot_be_probed_is_one_line(url: str) -> None:
    """A URL without a port, or of another scheme, is refused with an example."""
    assert "is not a URL such as http://" in fault(url)


def test_the_probe_asks_where_the_service_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL it asks the address of the settings; an address for all interfaces is asked on loopback."""
    assert own_url() == "http://127.0.0.1:8000/health/ready"
    for host, shown in (("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.7", "10.0.0.7")):
        monkeypatch.setenv("SNAPURL_HOST", host)
        monkeypatch.setenv("SNAPURL_PORT", "8123")
        assert own_url() == f"http://{shown}:8123/health/ready"
