"""`snapurl up` as a user runs it: a real process, real signals, nothing left behind."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from snapurl.local.free_ports import free_port
from snapurl.local.process import is_running
from snapurl.run.supervisor import environ_with, python_argv
from tests.support.waits import HANG_S, blocking_until

_RUNS = itertools.count(1)
STOP_S_MAX = 10.0


class Up:
    """A running `snapurl up`, its output in a file."""

    def __init__(self, home: Path, port: int, *, terminal: bool = False, **settings: str) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.log = home.with_name(f"up-{next(_RUNS)}.log")
        self._heard = 0
        self.environ = environ_with(
            {"SNAPURL_HOME": str(home), "SNAPURL_PORT": str(port), "SNAPURL_WORKERS": "2", **settings}
        )
        with ExitStack() as stack:
            log = stack.enter_context(self.log.open("ab", buffering=0))  # the terminal writes there, too
            stdout = stack.enter_context(terminal_into(self.log)) if terminal else log.fileno()
            self.process = subprocess.Popen(
                python_argv("-m", "snapurl", "up"),
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has said, or said since `listen`."""
        return self.log.read_text()[self._heard :]

    def listen(self) -> None:
        """Leaves the output so far out of `output`."""
        self._heard = len(self.log.read_text())

    def wait_until_ready(self) -> None:
        deadline = monotonic() + HANG_S
        while True:
            with suppress(OSError):
                if self.ask("/health/ready")["status"] == "ok":
                    return
            assert monotonic() < deadline, self.output
            sleep(0.05)

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = monotonic() + HANG_S
        while self.output.count(text) < times:
            assert self.process.poll() is None, self.output
            assert monotonic() < deadline, self.output
            sleep(0.02)

    def pids(self) -> set[int]:
        """Returns the process ids of `up` and all its descendants."""
        lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = {int(pid): int(parent) for pid, parent in map(str.split, lines.splitlines())}
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def workers(self) -> list[int]:
        lines = subprocess.run(
            ["ps", "-ww", "-eo", "pid=,command="], capture_output=True, text=True, check=True
        )
        mine = self.pids()
        rows = (line.split(maxsplit=1) for line in lines.stdout.splitlines())
        return sorted(
            int(pid) for pid, command in rows if "snapurl.run.worker" in command and int(pid) in mine
        )

    def ask(self, path: str, body: object = None, key: str = "") -> dict[str, object]:
        headers = {"Content-Type": "application/json", **({"X-Api-Key": key} if key else {})}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data=data, headers=headers), timeout=HANG_S) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def ask_again(self, path: str, body: object = None, key: str = "") -> dict[str, object]:
        """Asks until it is no 503: each worker finds by itself that a shard serves again."""

        def answer() -> dict[str, object] | None:
            try:
                return self.ask(path, body, key)
            except HTTPError as refusal:
                assert refusal.code == 503
                return None

        found = blocking_until(answer, lambda: self.output)
        assert found is not None
        return found

    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs another command with the same settings."""
        return subprocess.run(
            python_argv("-m", "snapurl", *words),
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def terminal_into(log: Path) -> Iterator[int]:
    """Yields a terminal, as a file descriptor, on which a program writes what comes into `log`."""
    reading, writing = pty.openpty()

    def copy() -> None:
        with (
            suppress(OSError),
            log.open("ab", buffering=0) as out,
        ):  # raised once nobody has the terminal open
            while text := os.read(reading, 4096):
                out.write(text)
        os.close(reading)

    Thread(target=copy, daemon=True).start()
    yield writing
    os.close(writing)


def server_pid(directory: Path) -> int:
    """Returns the process id of the server whose files are in `directory`."""
    file = directory / ("redis.pid" if directory.name == "redis" else "data/postmaster.pid")
    return int(file.read_text().splitlines()[0])


@contextmanager
def up(home: Path, port: int | None = None, *, terminal: bool = False, **settings: str) -> Iterator[Up]:
    running = Up(home, port or free_port(set()), terminal=terminal, **settings)
    try:
        running.wait_for("Ctrl-C stops everything")
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
        running.process.wait(HANG_S)


@pytest.fixture(scope="module")
def shared_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An `up` on a terminal, for the tests that leave it running, whatever they kill."""
    with up(tmp_path_factory.mktemp("up") / "home", terminal=True) as running:
        yield running


@pytest.fixture
def running(shared_up: Up) -> Up:
    """`shared_up`, ready, with no output that an earlier test has caused."""
    shared_up.wait_until_ready()
    shared_up.listen()
    return shared_up


def assert_stops(running: Up, pids: set[int]) -> None:
    """Asserts that `up` and all its children end cleanly and in time."""
    assert running.process.wait(STOP_S_MAX) == 0, running.output
    assert "Traceback" not in running.output
    assert running.output.rstrip().endswith("Everything has stopped.")
    assert not [pid for pid in pids if is_running(pid)]


def test_first_and_second_run(tmp_path: Path) -> None:
    """The banner shows a working address and where the key is; a second run has the same data, key and address."""
    home = tmp_path / "home"
    with up(home) as first:
        pids = first.pids()
        key = first.key()
        assert first.url in first.output and str(home / "admin.key") in first.output
        assert key not in first.output  # it goes into a file, which others may be able to read
        assert (home / "admin.key").stat().st_mode & 0o777 == 0o600
        made = first.ask("/api/v1/links", {"url": "https://example.org/first"})
        first.process.send_signal(signal.SIGINT)  # only to the parent
        assert_stops(first, pids)
    with up(home) as second:
        pids = second.pids()
        assert second.key() == key
        kept = second.ask(f"/api/v1/links/{made['code']}", key=key)
        assert kept["url"] == "https://example.org/first"
        os.killpg(second.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
        assert_stops(second, pids)


def test_lines_to_try_work(running: Up) -> None:
    """The three lines of the banner, pasted into a shell, create a link, follow it, and show its clicks."""
    lines = re.findall(r"^ +(curl .*)$", running.log.read_text(), re.MULTILINE)
    assert len(lines) == 3
    created, followed, counted = (
        subprocess.run(line, shell=True, capture_output=True, text=True, check=False).stdout for line in lines
    )
    assert json.loads(created)["url"] == "https://example.org/a/long/address"
    assert "location: https://example.org/a/long/address" in followed.lower()
    deadline = monotonic() + HANG_S
    while json.loads(counted)["clicks"] != 1:
        assert monotonic() < deadline, counted
        sleep(0.05)
        counted = subprocess.run(lines[2], shell=True, capture_output=True, text=True, check=True).stdout


def test_killed_worker_is_replaced_and_nobody_notices(running: Up) -> None:
    """While workers are killed one by one, the service keeps answering, and each is replaced."""
    for _ in range(3):
        before = running.workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        deadline = monotonic() + HANG_S
        while len(running.workers()) < 2 or before[0] in running.workers():
            running.ask("/health/live")
            assert monotonic() < deadline
    running.wait_for("was killed by SIGKILL; restarting it", 3)


def test_admin_key_is_shown_on_a_terminal(running: Up) -> None:
    """On a terminal the banner shows the admin key itself."""
    blocking_until(lambda: f"admin key   {running.key()} " in running.log.read_text())
    blocking_until(lambda: "Dashboard, logged in: http" in running.log.read_text())


@pytest.mark.parametrize("server", ["db1", "redis"])
def test_killed_server_is_said_and_restarted_and_serves_again(running: Up, server: str) -> None:
    """A server that is killed is named in one line and started again; then everything works as before."""
    name = "Redis" if server == "redis" else f"PostgreSQL {server}"
    made = [running.ask("/api/v1/links", {"url": f"https://example.org/{n}"}) for n in range(20)]
    for times in (1, 2):
        os.kill(server_pid(running.home / server), signal.SIGKILL)
        running.wait_for(f"{name} was killed by SIGKILL; restarting it in", times)
        running.wait_for(f"{name} runs again", times)
        running.wait_until_ready()
    found = [running.ask_again(f"/api/v1/links/{link['code']}", key=running.key()) for link in made]
    assert [link["url"] for link in found] == [link["url"] for link in made]
    assert (
        len({running.ask_again("/api/v1/links", {"url": "https://example.org/"})["code"] for _ in made}) == 20
    )
    assert running.output.count(f"{name} was killed by SIGKILL") == 2


def test_all_servers_killed_at_once_serve_again(running: Up) -> None:
    """If all PostgreSQL servers die at once, all of them serve again, with nobody's help."""
    made = running.ask("/api/v1/links", {"url": "https://example.org/kept"})
    for number in range(4):
        os.kill(server_pid(running.home / f"db{number}"), signal.SIGKILL)
    for number in range(4):
        running.wait_for(f"PostgreSQL db{number} runs again")
    running.wait_until_ready()
    assert running.ask_again(f"/api/v1/links/{made['code']}", key=running.key())["url"] == made["url"]


def test_logs_have_one_format_and_say_what_happens(tmp_path: Path) -> None:
    """With SNAPURL_LOG_FORMAT=json each line of the log is JSON, of the supervisor's too."""
    with up(tmp_path / "home", SNAPURL_LOG_FORMAT="json") as running:
        os.kill(running.workers()[0], signal.SIGKILL)
        os.kill(server_pid(running.home / "db1"), signal.SIGKILL)
        running.wait_for("PostgreSQL db1 runs again")
        running.wait_for("was killed by SIGKILL; restarting it")
        running.wait_until_ready()
        log = [line for line in running.output.splitlines() if "KILL" in line or "again" in line]
        assert {json.loads(line)["level"] for line in log} == {"info", "warning"}


def test_commands_find_the_local_cluster(running: Up) -> None:
    """Without SNAPURL_SHARDS, `keys` and `migrate` act on the cluster in SNAPURL_HOME."""
    made = running.run("keys", "create", "reader", "--right", "read")
    assert made.returncode == 0, made.stderr
    assert "links" in running.ask("/api/v1/links", key=made.stdout.strip())
    header, *listed = running.run("keys", "list").stdout.splitlines()
    assert header.split() == ["id", "account", "rights", "limit", "created", "used", "state", "name"]
    assert [line.split()[-1] for line in listed] == ["admin", "reader"]
    document = json.loads(running.run("keys", "list", "--json").stdout)
    assert [(key["name"], key["rights"]) for key in document["keys"]] == [
        ("admin", ["admin"]),
        ("reader", ["read"]),
    ]
    assert running.run("migrate").stdout == "Every shard is up to date.\n"
    assert running.run("health").stdout == "ready\n"
    assert running.run("keys", "revoke", "nobody").returncode == 1
    link = running.run("login-link").stdout.strip()
    assert link.startswith(f"{running.url}/ui/login/link?token=")
    form = urlsplit(link).query.encode()
    with urlopen(Request(link.partition("?")[0], form, {"Origin": running.url})) as start:
        assert start.url == f"{running.url}/ui/login?next=%2Fui"  # urlopen keeps no cookies
    assert running.run("login-link", "nobody").returncode == 1


def test_taken_port_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    """A port in use is the only line of output, and no directory is created."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = Up(tmp_path / "home", other.getsockname()[1])
        assert refused.process.wait(HANG_S) == 2
    assert refused.output.startswith("snapurl: cannot listen on 127.0.0.1:")
    assert "SNAPURL_PORT" in refused.output
    assert len(refused.output.splitlines()) == 1
    assert not refused.home.exists()


def test_second_up_on_one_home_is_one_line(running: Up) -> None:
    """A second `up` with the same home reports the first one and does not disturb it."""
    second = Up(running.home, free_port(set()))
    assert second.process.wait(HANG_S) == 2
    assert "is already running" in second.output.splitlines()[-1]
    assert running.ask("/health/ready")


@pytest.mark.parametrize("moment", ["Starting", "initdb", "cluster.json"])
def test_stop_while_starting_leaves_nothing(tmp_path: Path, moment: str) -> None:
    """SIGTERM at any point of the start ends it in time, without a stack trace, and the next start works."""
    home = tmp_path / "home"
    starting = Up(home, free_port(set()))
    signs = {
        "Starting": starting.log,
        "initdb": home / "db0" / "data.new",
        "cluster.json": home / "cluster.json",
    }
    deadline = monotonic() + HANG_S
    while not (signs[moment].exists() and (moment != "Starting" or "Starting" in starting.output)):
        assert monotonic() < deadline
        sleep(0.005)
    pids = starting.pids()
    starting.process.terminate()
    assert starting.process.wait(STOP_S_MAX) == 0, starting.output
    assert "Traceback" not in starting.output
    assert not [pid for pid in pids if is_running(pid)]
    with up(home) as running:
        assert running.ask("/health/ready")


def test_killed_up_is_followed_by_a_good_one(tmp_path: Path) -> None:
    """After kill -9 of `up`, the next one on the same home and port works and has the data."""
    home, port = tmp_path / "home", free_port(set())
    with up(home, port) as killed:
        pids = killed.pids() - {killed.process.pid}
        made = killed.ask("/api/v1/links", {"url": "https://example.org/kept"})
        killed.process.kill()
        killed.process.wait()
    deadline = monotonic() + HANG_S
    while any(map(is_running, pids)) and monotonic() < deadline:
        sleep(0.05)
    with up(home, port) as running:
        assert running.ask(f"/api/v1/links/{made['code']}", key=running.key())["code"] == made["code"]


def test_bad_setting_is_one_line(tmp_path: Path) -> None:
    """An invalid setting is one line that names its variable, with exit code 2."""
    refused = Up(tmp_path / "home", 8000, SNAPURL_WORKERS="none")
    assert refused.process.wait(HANG_S) == 2
    assert refused.output.startswith("snapurl: SNAPURL_WORKERS: ")
    assert len(refused.output.splitlines()) == 1


def test_serve_without_shards_is_one_line() -> None:
    """`serve` without SNAPURL_SHARDS says what to set."""
    done = subprocess.run(python_argv("-m", "snapurl", "serve"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("snapurl: SNAPURL_SHARDS is missing")
    assert len(done.stderr.splitlines()) == 1


def test_unreachable_service_is_not_ready() -> None:
    """`health` fails and says so if the service does not run."""
    environ = environ_with({"SNAPURL_PORT": str(free_port(set()))})
    done = subprocess.run(
        python_argv("-m", "snapurl", "health"), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no answer" in done.stdout
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{environ['SNAPURL_PORT']}/", timeout=1)
