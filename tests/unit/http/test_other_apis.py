"""The APIs of other programs are there only if they are switched on."""

from __future__ import annotations

import subprocess
import sys

SHOW = """
import sys
from snapurl.app import create_app
from snapurl.config import load_settings

OWN = ("snapurl.http.shlink.mount", "snapurl.http.yourls.mount")
for settings in ({}, {"shlink_api": True, "yourls_api": True}):
    app = create_app(load_settings(**settings))
    print(*sorted(route.path for route in app.router.routes if route.path.startswith(("rest", "yourls"))))
    print(*sorted(name for name in sys.modules if name in OWN))
"""


def test_an_api_that_is_off_is_not_even_loaded() -> None:
    """By default a worker has neither the addresses nor the code of these APIs; a setting brings both."""
    run = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "",
        "",
        "rest/<rest:path> yourls-api.php",
        "snapurl.http.shlink.mount snapurl.http.yourls.mount",
    ]
