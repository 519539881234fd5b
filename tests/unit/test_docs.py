"""The documents agree with the program, and everything that they refer to exists."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import yaml

from snapurl.cli import cli as snapurl
from snapurl.config import Settings
from snapurl.local.binaries import POSTGRES_MAJOR_MIN
from tests.support.documents import (
    PACKAGES,
    ROOT,
    first_sentence,
    generated_files,
    metric_table,
    rewritten,
)
from tools.cli import cli as reshard

EXTERNAL = ("http://", "https://", "mailto:")
COMMAND = re.compile(
    r"^(?:\$ )?(?:docker compose exec \w+ )?(?:[A-Z_]+=\S+ )*(?:[\w./]+/)?(snapurl(?:-reshard)?) ([a-z][^\n#;|]*)",
    re.MULTILINE,
)
SUFFIXES = "py|sql|md|yml|toml|sh|cfg|conf|lua|css|lock|svg|json"


def documents() -> list[Path]:
    """Returns every Markdown file of the repository, including uncommitted ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        names = [name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # an archive without git
        names = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.md") if ".venv" not in file.parts]
    return [ROOT / name for name in sorted(names) if (ROOT / name).exists()]


DOCUMENTS = documents()


def prose(text: str) -> str:
    """Returns the text without code blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


@cache
def anchors(file: Path) -> frozenset[str]:
    """Returns the anchors that a git host derives from the headings of a page."""
    found: dict[str, int] = {}
    names = []
    for heading in re.findall(r"(?m)^#{1,6} +(.+?) *#*$", prose(file.read_text(encoding="utf-8"))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names.append(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return frozenset(names)


def test_there_are_documents_to_check() -> None:
    """The list of documents contains README, ARCHITECTURE and the pages of docs/."""
    names = {str(file.relative_to(ROOT)) for file in DOCUMENTS}
    assert {"README.md", "ARCHITECTURE.md", "docs/index.md", ".github/CONTRIBUTING.md"} <= names
    assert len(names) > 30


@pytest.mark.parametrize("file", generated_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_generated_parts_are_what_the_program_says(file: Path) -> None:
    """Generated tables (modules, settings, bounds, metrics, hand-off) match the program: `make tables`."""
    text = file.read_text(encoding="utf-8")
    assert text == rewritten(str(file.relative_to(ROOT)), text), "run `make tables`"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_relative_links_lead_somewhere(file: Path) -> None:
    """Every relative link points at an existing file and, if it names a heading, at an existing heading."""
    broken = []
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(file.read_text(encoding="utf-8"))):
        if target.startswith(EXTERNAL):
            continue
        path, _, anchor = unquote(target).partition("#")
        place = (file.parent / path).resolve() if path else file
        if not place.is_file() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_paths_that_are_named_exist(file: Path) -> None:
    """A path such as `snapurl/app.py` in backticks is a file of the repository; `a/b.py::name` is defined there."""
    missing = []
    roots = (
        ROOT,
        file.parent,
        ROOT / "snapurl",
    )  # the last is for docstring sentences in the table of modules
    text = prose(file.read_text(encoding="utf-8"))
    for path, name in re.findall(rf"`([\w.-]+(?:/[\w.-]+)+\.(?:{SUFFIXES}))(?:::(\w+))?`", text):
        if path.startswith(("secrets/", "build/")):
            continue
        places = [place for root in roots if (place := root / path).is_file()]
        if not places or (name and not re.search(rf"\b{name}\b", places[0].read_text(encoding="utf-8"))):
            missing.append(f"{path}::{name}" if name else path)
    assert not missing


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_settings_and_metrics_that_are_named_exist(file: Path) -> None:
    """Every `SNAPURL_…` is a setting, and every `snapurl_…` between backticks with a unit is a metric."""
    text = file.read_text(encoding="utf-8")
    settings = {f"SNAPURL_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bSNAPURL_[A-Z0-9_]*[A-Z0-9]\b", text)) <= settings
    named = re.findall(r"`(snapurl_\w+_(?:total|seconds|bytes|left|rows|up|held|waiting))`", text)
    exported = set(re.findall(r"^\| `(\w+)` \|", metric_table(""), re.MULTILINE))
    assert set(named) <= exported


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_that_are_named_exist(file: Path) -> None:
    """Every `snapurl …` and `snapurl-reshard …` in code is an existing command with existing options."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"`([^`\n]+)`", prose(text)) + re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```$", text)
    for program, words in re.findall(COMMAND, "\n".join(code)):
        command: click.Command = {"snapurl": snapurl, "snapurl-reshard": reshard}[program]
        for word in words.split():
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word.rstrip(",."))
                assert found is not None, f"{program} has no command {word}"
                command = found
            elif word.startswith("--"):
                options = {each for parameter in command.params for each in parameter.opts}
                assert word.partition("=")[0] in {*options, "--help"}, f"{program} {words}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_does(package: str) -> None:
    """Each module and each folder has a docstring, so that ARCHITECTURE.md can name it."""
    silent = [str(file) for file in (ROOT / package).rglob("*.py") if not first_sentence(file)]
    assert not silent


def test_the_readme_is_short() -> None:
    """README.md sells and starts the program; the rest is in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_ci_matrix_is_what_is_documented() -> None:
    """CI runs on every Python that pyproject allows and every PostgreSQL that the README names."""
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    workflow: dict[Any, Any] = yaml.safe_load(text)
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]
    pythons = [tuple(map(int, version.split("."))) for version in matrix["python"]]
    servers = [int(version) for version in matrix["postgres"]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={matrix['python'][0]}"
    assert [minor for _, minor in pythons] == [*range(pythons[0][1], pythons[-1][1] + 1)]
    assert servers == [*range(POSTGRES_MAJOR_MIN, servers[-1] + 1)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {matrix['python'][0]} to {matrix['python'][-1]}" in readme
    assert f"PostgreSQL {servers[0]} to {servers[-1]}" in readme
