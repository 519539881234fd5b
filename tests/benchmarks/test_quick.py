"""The benchmarks work: each scenario runs once, for less than a second, and no figure is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.load.scenarios import SCENARIOS
from benchmarks.profile import Profile, shares, table
from tests.support.requirements import program, requires
from tests.support.waits import HANG_S

ROOT = Path(__file__).parents[2]


def quick(results: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, "--quick", "--results", str(results), *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True,
        timeout=5 * HANG_S,
    )  # fmt: skip


@requires("nginx")
@requires("wrk")
def test_load_suite_runs_every_scenario_without_an_error(tmp_path: Path) -> None:
    """Each scenario runs without an error and counts each click, and the results show it."""
    done = quick(tmp_path, "benchmarks.load", "--dashboards", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "load.json").read_text())
    ours = {item["scenario"]: item for item in found["results"] if item["subject"] == "SnapURL"}
    assert set(ours) == {scenario.name for scenario in SCENARIOS}
    for name in ("hot", "hot2", "zipf", "warm", "cold", "mixed"):
        (run,) = ours[name]["runs"]
        assert not any(run["sent"]["errors"].values())
        assert run["clicks"]["counted"] == run["clicks"]["answered"] > 0
    watched = {item["scenario"] for item in found["results"] if item["subject"] == "SnapURL, 2 dashboards"}
    assert watched == {"hot", "zipf"}
    (missing,) = ours["missing"]["runs"]
    assert missing["sent"]["errors"]["status"] == missing["sent"]["requests"]
    assert found["worker_mib"]["with_links"] > 0
    assert (
        [flood["counted"] for flood in found["floods"]]
        == [flood["recorded"] for flood in found["floods"]]
        != [0]
    )
    assert found["reshard"]["clicks_counted"] == found["reshard"]["redirects_answered"] > 0
    assert found["reshard"]["add"]["rows"] > 0
    assert list(found["by_links"]) == ["500"]
    assert list(found["by_shards"]) == ["2"]
    assert (tmp_path / "load.md").read_text().startswith("# Load")


def test_reshard_benchmark_loses_nothing(tmp_path: Path) -> None:
    """Rows are moved at some speed, and under traffic no request fails and no create or click is lost."""
    has_psql = program("psql") is not None  # the speed is compared with it
    done = quick(tmp_path, "benchmarks.reshard", *(() if has_psql else ("--only", "traffic")))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "reshard.json").read_text())
    assert not has_psql or found["speed"]["ratio"] > 0
    traffic = found["traffic"]
    assert traffic["failed"] == {}
    assert traffic["created"] == traffic["created_and_found"] > 0
    assert traffic["redirected"] == traffic["clicks_counted"] > 0
    assert traffic["add"]["rows"] > 0
    assert traffic["drain"]["rows"] > 0


def test_a_profile_books_samples_under_the_innermost_part() -> None:
    """Time in a library counts for the library, time in a C function for its caller, and shares add up to 1."""
    stacks = (
        "main (snapurl/run/worker.py:41);Runner.run (asyncio/runners.py:118) 10\n"
        "main (snapurl/run/worker.py:41);handler (snapurl/http/dispatch.py:5);check (pydantic/main.py:7) 30\n"
        "main (snapurl/run/worker.py:41);handler (snapurl/http/dispatch.py:5);deepcopy (lib/copy.py:3) 60\n"
    )
    assert shares(stacks) == {
        "event loop, sockets (uvloop)": 0.1,
        "bodies (pydantic, JSON)": 0.3,
        "HTTP, ours": 0.6,
    }


def test_a_profile_is_shown_beside_an_earlier_one() -> None:
    """Each path shows its parts and their sum, then and now; a path that is new has one figure."""
    now = [Profile("warm", 20.0, {"caches": 12.0, "clicks": 8.0}), Profile("bulk", 5.0, {"caches": 5.0})]
    shown = table(now, [Profile("warm", 50.0, {"caches": 50.0})], "before")
    assert "| caches | 50.0 → 12.0 | 5.0 |" in shown
    assert "| **all** | 50.0 → 20.0 | 5.0 |" in shown
