"""docker-compose.yml as Compose reads it, with variables filled in and secrets mounted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
SECRETS_PLACE = "/run/secrets"

Service = dict[str, Any]


def composed(name: str = "docker-compose.yml") -> dict[str, Any]:
    """Returns a Compose file as it is written."""
    return dict(yaml.safe_load((ROOT / name).read_text()))


def filled(value: object, given: Mapping[str, str] | None = None) -> str:
    """Returns a value as Compose passes it, with the variables of `given` set and all others at their defaults."""
    known = given or {}
    return VARIABLE.sub(lambda match: known.get(match[1]) or match[2], str(value)).replace("$$", "$")


def environ(service: Service, given: Mapping[str, str] | None = None) -> dict[str, str]:
    return {name: filled(value, given) for name, value in service.get("environment", {}).items()}


def image_environ() -> dict[str, str]:
    """Returns the environment that the Dockerfile sets for the program's services."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    return dict(
        word.split("=", 1) for line in re.findall(r"^ENV (.+)$", last, re.MULTILINE) for word in line.split()
    )


def secrets_of(service: Service) -> dict[str, str]:
    """Returns the name of the secret for each file under /run/secrets."""
    listed = service.get("secrets", [])
    pairs = [(item, item) if isinstance(item, str) else (item["target"], item["source"]) for item in listed]
    return dict(pairs)


def secret_file(name: str) -> str:
    """Returns the path of a secret relative to the directory of the compose file."""
    return str(composed()["secrets"][name]["file"])


def make_secrets(directory: Path) -> None:
    """Runs the operator's script in an empty directory."""
    script = ROOT / "deploy/compose/make-secrets.sh"
    subprocess.run(["sh", script], cwd=directory, check=True)


def mount_secrets(service: Service, made: Path, place: Path) -> Path:
    """Copies the files of `made` to `place`, under the names that the service finds below /run/secrets."""
    place.mkdir(exist_ok=True)
    for target, source in secrets_of(service).items():
        (place / target).write_bytes((made / secret_file(source)).read_bytes())
    return place
