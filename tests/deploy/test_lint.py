"""cfn-lint checks that resources and properties exist in AWS, and the types of their values."""

from __future__ import annotations

import subprocess
import sys

from tests.deploy.templates import AWS, NAMES
from tests.support.waits import HANG_S

REGIONS = ("eu-central-1", "us-east-1")


def test_cfn_lint_has_nothing_to_say() -> None:
    """Every template passes cfn-lint without errors or warnings."""
    paths = [f"{AWS}/{name}.yml" for name in NAMES]
    assert paths
    program = "from cfnlint.runner import main; main()"  # what the command runs; it may not be on PATH
    command = [sys.executable, "-c", program, "--regions", *REGIONS, "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5 * HANG_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
