"""The systemd units of deploy/systemd, and the settings and logins of the page that installs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from snapurl.config import PREFIX, Settings, load_settings
from snapurl.run.serve import WORKER_STOP_S_MAX
from tests.support.requirements import requires
from tests.unit.test_compose import assert_is_command
from tools.cli import cli as reshard

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "deploy/systemd"
PAGE = (ROOT / "docs/operate/debian.md").read_text()
UNITS = sorted(file.name for file in PLACE.glob("*.service"))
EXPOSURE_MAX = 1.5
"""Of 10, as `systemd-analyze security` counts. Most services of a distribution have more than 9."""

every_unit = pytest.mark.parametrize("name", UNITS)


def values(name: str, key: str) -> list[str]:
    """Returns the values of a key of a unit, in order."""
    return re.findall(rf"^{key}=(.*)$", (PLACE / name).read_text(), re.MULTILINE)


def environment() -> dict[str, str]:
    """Returns /etc/snapurl/env as the page writes it."""
    (text,) = re.findall(r"cat > /etc/snapurl/env <<'EOF'\n(.*?)^EOF$", PAGE, re.DOTALL | re.MULTILINE)
    return dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))


def test_there_is_a_unit_for_each_program() -> None:
    """Service, click consumer, migrator and migrations have units."""
    assert UNITS == [
        "snapurl-clicks.service",
        "snapurl-migrate.service",
        "snapurl-migrator.service",
        "snapurl.service",
    ]


@every_unit
def test_the_program_accepts_what_it_is_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and credentials are settings with valid values, the command exists, the page makes the login."""
    own = dict(word.split("=", 1) for line in values(name, "Environment") for word in line.split())
    assert own.pop("SNAPURL_SECRETS_DIR") == "%d"  # where systemd puts credentials
    assert values(name, "EnvironmentFile") == ["/etc/snapurl/env"]
    for variable, value in {**own, **environment()}.items():
        assert variable == "PGUSER" or variable.removeprefix(PREFIX).lower() in Settings.model_fields
        if variable != "PGUSER":
            monkeypatch.setenv(variable, value)
    credentials = dict(line.split(":") for line in values(name, "LoadCredential"))
    for credential, file in credentials.items():
        assert credential.removeprefix("snapurl_") in Settings.model_fields
        assert f"> {file}\n" in PAGE
        (tmp_path / credential).write_text(f"{credential}-of-at-least-32-characters")
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert [item.name for item in settings.shard_dsns] == ["db0", "db1"]
    (login,) = [value for variable, value in own.items() if variable == "PGUSER"]
    assert f"CREATE USER {login} PASSWORD" in PAGE
    assert login in (PLACE / "snapurl-as").read_text()
    ((program, *words),) = [line.split() for line in values(name, "ExecStart")]
    if program == "/opt/snapurl/bin/snapurl-reshard":
        _, _, options = reshard.resolve_command(click.Context(reshard), words)
        reshard.commands["run"].make_context("run", options)
    else:
        assert program == "/opt/snapurl/bin/snapurl"
        assert_is_command(words)


@every_unit
@requires("systemd-analyze")
def test_units_are_sound_and_confined(name: str, tmp_path: Path) -> None:
    """systemd finds no fault with a unit, and little that the program could do to the rest of the machine."""
    unit = tmp_path / name
    text = re.sub(r"/opt/snapurl/bin/\S+", "/bin/true", (PLACE / name).read_text())
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert name not in done.stderr, done.stderr
    assert done.returncode == 0
    threshold = f"--threshold={int(EXPOSURE_MAX * 10)}"
    found = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-300:] + found.stderr


@every_unit
def test_units_run_as_a_user_without_rights(name: str) -> None:
    """Every program runs as the system user that the package of units makes, without any capability."""
    assert values(name, "User") == ["snapurl"]
    assert values(name, "CapabilityBoundingSet") == [""]
    assert values(name, "ProtectSystem") == ["strict"]
    assert re.search(r'^u snapurl - "', (PLACE / "snapurl.sysusers").read_text(), re.MULTILINE)


def test_a_stopping_service_has_enough_time() -> None:
    """systemd waits longer than the service does, whatever SNAPURL_STOP_DELAY_S is."""
    delay = next(each.le for each in Settings.model_fields["stop_delay_s"].metadata if hasattr(each, "le"))
    (wait,) = values("snapurl.service", "TimeoutStopSec")
    assert float(wait) > delay + WORKER_STOP_S_MAX + 1
    for name in ("snapurl-clicks.service", "snapurl-migrator.service"):
        (wait,) = values(name, "TimeoutStopSec")
        assert float(wait) > WORKER_STOP_S_MAX + 1


def test_an_operator_s_command_has_settings_and_secrets(tmp_path: Path) -> None:
    """`snapurl-as` runs a program with the settings of the page, and the secrets of the login that is named."""
    script, program = tmp_path / "snapurl-as", tmp_path / "bin/snapurl"
    text = (PLACE / "snapurl-as").read_text()
    script.write_text(text.replace("/etc/snapurl", str(tmp_path)).replace("/opt/snapurl", str(tmp_path)))
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport os, sys\nprint(dict(os.environ), sys.argv[1:])\n")
    program.chmod(0o755)
    lines = [f'{name}="{value}"\n' for name, value in environment().items()]
    (tmp_path / "env").write_text("".join(lines))

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", script, *words], env={}, capture_output=True, text=True, check=False)

    done = said("migrator", "snapurl", "a b", "c")
    assert done.returncode == 0, done.stderr
    wanted = {
        **environment(),
        "PGUSER": "snapurl_resharder",
        "SNAPURL_SECRETS_DIR": str(tmp_path / "migrator"),
    }
    assert all(repr(name) + ": " + repr(value) in done.stdout for name, value in wanted.items())
    assert done.stdout.endswith("['a b', 'c']\n")
    for wrong in ((), ("root", "snapurl"), ("owner",)):
        refused = said(*wrong)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
