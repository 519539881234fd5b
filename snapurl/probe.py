"""`snapurl-probe [URL]`: whether a program of this host is ready, at a fraction of the cost of starting one.

Made for the health checks of containers, which run every few seconds: it imports `socket` and nothing of the
service. Without a URL it asks the HTTP service at SNAPURL_HOST and SNAPURL_PORT; the other programs are asked on
their metrics ports (`snapurl-probe http://127.0.0.1:9100/health/ready`). It prints one line and exits with 0 if the
program is ready, with 1 if it is not. `snapurl health` also checks whose service it is.
"""

import os
import socket
import sys

ANSWER_S_MAX = 4.0
"""Longer than /health/ready takes while a shard does not answer."""
BYTES_MAX = 65_536

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


def own_url() -> str:
    """Returns the address of the readiness of the HTTP service on this host."""
    # Not from `config.py`: what it imports costs twenty times as much as the probe.
    host = os.environ.get("SNAPURL_HOST", "")
    host = ANY.get(host, host)
    return (
        f"http://{f'[{host}]' if ':' in host else host}:{os.environ.get('SNAPURL_PORT') or 8000}/health/ready"
    )


def fault(url: str) -> str:
    """Returns why the program at a URL such as `http://127.0.0.1:9100/health/ready` is not ready; "" if it is."""
    scheme, _, rest = url.partition("://")
    address, _, path = rest.partition("/")
    host, _, port = address.rpartition(":")
    if scheme != "http" or not host or not port.isdecimal():
        return f"{url} is not a URL such as http://127.0.0.1:9100/health/ready"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S_MAX) as connection:
            head = f"GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b""
            while len(answer) < BYTES_MAX and (part := connection.recv(BYTES_MAX)):
                answer += part
    except OSError as error:
        return f"/{path}: no answer ({error.strerror or 'not in time'})"
    status = answer[9:12].decode("latin-1")
    if status == "200":
        return ""
    body = " ".join(answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").split())
    return f"/{path}: {status or 'no answer'} {body}".rstrip()


def main() -> None:
    """Prints the fault, or `ready`, and exits."""
    found = fault(sys.argv[1] if len(sys.argv) > 1 else own_url())
    print(found or "ready")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
