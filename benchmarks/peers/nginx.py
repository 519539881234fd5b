"""nginx that answers everything with `return 302`: the upper limit for a web server on these cores."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.programs import BenchmarkFailed

CONFIG = """
daemon off;
worker_processes {workers};
pid {place}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        return 302 {target};
    }}
}}
"""


def nginx_command(directory: Path, port: int, workers: int, target: str) -> list[str | Path]:
    """Writes the configuration of nginx. Returns the command that runs it. Raises BenchmarkFailed without nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchmarkFailed("nginx is not on PATH (Debian, Ubuntu: apt-get install nginx-light)")
    place = directory / f"nginx-{port}"
    place.mkdir(parents=True, exist_ok=True)
    config = place / "nginx.conf"
    config.write_text(CONFIG.format(place=place, port=port, workers=workers, target=target))
    return [program, "-p", place, "-c", config, "-e", "stderr"]
