"""Writes the generated parts of the documents: `make tables`.

A generated part is between `<!-- generated:NAME … -->` and `<!-- end:NAME -->`. `GENERATED` lists the parts of each
file and their functions. `tests/unit/test_docs.py` fails if a file differs from their output.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le
from prometheus_client import Counter, Gauge, Histogram
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ring.diagram import render_crash_table, render_diagram, render_steps
from snapurl.backup.decisions import KEPT, LEFT
from snapurl.config import Settings
from snapurl.telemetry import metrics
from tests.support.source_code import parsed

ROOT = Path(__file__).parents[2]
PACKAGES = ("ring", "snapurl", "tools", "migrations")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# -- modules ------------------------------------------------------------------------------------------------------


def modules(_: str) -> str:
    """Returns a table of the folders and their modules, each with the first sentence of its docstring."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    rows = []
    for folder, found in groupby(
        sorted(files, key=lambda file: (file.parent, file.name)), lambda f: f.parent
    ):
        about = {file.name: first_sentence(file) for file in found}
        rows.append((f"**`{folder.relative_to(ROOT)}/`**", about.pop("__init__.py", "")))
        rows += [(f"`{name}`", text) for name, text in about.items() if text]
    return _table(("module", "what it does"), rows)


def first_sentence(file: Path) -> str:
    """Returns the first sentence of a module's docstring on one line without the full stop; "" if it has none."""
    text = ast.get_docstring(parsed(file)) or ""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.]{3})\.(?= |$)", line)[0].replace("|", r"\|")


# -- settings -----------------------------------------------------------------------------------------------------


def settings(_: str) -> str:
    """Returns a table of all settings with default and meaning."""
    rows = [
        (f"`SNAPURL_{name.upper()}`", _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "default", "what it is"), rows)


def setting_bounds(_: str) -> str:
    """Returns a table of all numeric settings with default and accepted range."""
    rows = [
        (f"`SNAPURL_{name.upper()}`", _default(field).strip("`"), _range(field), field.description or "")
        for name, field in Settings.model_fields.items()
        if _range(field)
    ]
    return _table(("setting", "default", "accepted", "what it bounds"), rows)


def _default(field: FieldInfo) -> str:
    default = field.default if field.default_factory is None else "cores"
    shown = default.get_secret_value() if isinstance(default, SecretStr) else default
    if shown in ("", None):
        return ""
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"


def _range(field: FieldInfo) -> str:
    least = next((f"{_number(m.ge)}" for m in field.metadata if isinstance(m, Ge)), "")
    above = next((f"above {_number(m.gt)}" for m in field.metadata if isinstance(m, Gt)), "")
    most = next((f"{_number(m.le)}" for m in field.metadata if isinstance(m, Le)), "")
    return f"{least or above} to {most}" if most else ""


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# -- constants ----------------------------------------------------------------------------------------------------

_ROW = re.compile(r"^\| (?P<what>[^|]+) \| [^|]+ \| `(?P<file>[\w/]+)\.py` `(?P<name>\w+)` \|", re.MULTILINE)


def constants(text: str) -> str:
    """Returns the existing rows, each with the current value of its constant."""

    def refresh(row: re.Match[str]) -> str:
        value = getattr(importlib.import_module(row["file"].replace("/", ".")), row["name"], None)
        if value is None:
            raise ValueError(f"{row['file']}.py has no {row['name']} any more: change or remove its row")
        return f"| {row['what']} | {_number(value)} | `{row['file']}.py` `{row['name']}` |"

    return _ROW.sub(refresh, text)


# -- metrics ------------------------------------------------------------------------------------------------------


def metric_table(_: str) -> str:
    """Returns a table of all metrics with type, labels and meaning."""
    rows = [
        (f"`{_exported(each)}`", each._type, ", ".join(each._labelnames), each._documentation)
        for each in vars(metrics).values()
        if isinstance(each, (Counter, Gauge, Histogram))
    ]
    return _table(("metric", "type", "labels", "meaning"), sorted(rows))


def _exported(metric: Counter | Gauge | Histogram) -> str:
    return f"{metric._name}_total" if isinstance(metric, Counter) else str(metric._name)


# -- hand-off -----------------------------------------------------------------------------------------------------


def hand_off(_: str) -> str:
    """Returns the crash table, the guards and the state diagram, generated from `ring/handoff.py`."""
    return "\n".join(
        [
            "### What is found after a crash, and which steps follow\n",
            render_crash_table(),
            "### What each step checks\n",
            render_steps(),
            "### The states of a row of `slots`\n",
            f"```mermaid\n{render_diagram().rstrip()}\n```\n",
        ]
    )


# -- backups ------------------------------------------------------------------------------------------------------


def backup(_: str) -> str:
    """Returns what a backup has of each table."""
    kept = ((f"`{name}`", "kept", why) for name, why in KEPT.items())
    left = ((f"`{name}`", "left", why) for name, why in LEFT.items())
    return _table(("table", "", "why"), (*kept, *left))


# -- the chart ----------------------------------------------------------------------------------------------------

CHART_SCHEMA = "deploy/helm/snapurl/values.schema.json"
CHART_SETS = {
    *("shards", "redis_url", "host", "port", "metrics_host", "metrics_port", "workers", "secrets_dir"),
    *("migrate_on_start", "stop_delay_s"),
}
"""Settings that the chart itself gives to the programs."""
OF_OTHER_COMMANDS = {"home", "url", "api_key_file"}
"""Settings of commands that the chart does not run."""


def chart_schema(text: str) -> str:
    """Returns the schema of the chart's values, in which `settings` may have the settings that are left to it."""
    schema = json.loads(text)
    secrets = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    free = Settings.model_fields.keys() - CHART_SETS - OF_OTHER_COMMANDS - secrets
    schema["properties"]["settings"]["propertyNames"]["enum"] = sorted(free)
    return json.dumps(schema, indent=2) + "\n"


# -- files --------------------------------------------------------------------------------------------------------

GENERATED: dict[tuple[str, str], Callable[[str], str]] = {
    ("ARCHITECTURE.md", "modules"): modules,
    ("docs/configuration.md", "settings"): settings,
    ("docs/design/bounds.md", "settings"): setting_bounds,
    ("docs/design/bounds.md", "service"): constants,
    ("docs/design/bounds.md", "migrator"): constants,
    ("docs/design/hand-off.md", "hand-off"): hand_off,
    ("docs/operate/backups.md", "backup"): backup,
    ("docs/operate/monitoring.md", "metrics"): metric_table,
}
"""(file, name of the part) -> what makes its text of the text that stands there."""


def rewritten(name: str, text: str) -> str:
    """Returns the text of the file `name` with its generated parts updated. Raises ValueError without markers."""
    if name == CHART_SCHEMA:
        return chart_schema(text)
    for (file, part), write in GENERATED.items():
        if file == name:
            text = _replaced(text, part, write)
    return text


def _replaced(text: str, part: str, write: Callable[[str], str]) -> str:
    markers = re.compile(rf"(<!-- generated:{part}\b[^\n]*-->\n\n)(.*?)(\n<!-- end:{part} -->)", re.DOTALL)
    found = markers.search(text)
    if found is None:
        raise ValueError(f"the markers of {part} are missing")
    return f"{text[: found.end(1)]}{write(found[2])}{text[found.start(3) :]}"


def generated_files() -> list[Path]:
    """Returns the files that have generated parts."""
    return [ROOT / name for name in (*dict.fromkeys(file for file, _ in GENERATED), CHART_SCHEMA)]


def main() -> None:
    """Rewrites all generated parts and prints which files changed."""
    for file in generated_files():
        before = file.read_text(encoding="utf-8")
        after = rewritten(str(file.relative_to(ROOT)), before)
        if after != before:
            file.write_text(after, encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
