"""cfn-lint knows which resources and properties AWS has, and of what kind their values are."""

from __future__ import annotations

import subprocess
import sys

from tests.deploy.templates import AWS, NAMES
from tests.support.waits import HANG_S

REGIONS = ("eu-central-1", "us-east-1")


def test_cfn_lint_has_nothing_to_say() -> None:
    """Every template passes cfn-lint, warnings and all."""
    paths = [f"{AWS}/{name}.yml" for name in NAMES]
    assert paths
    program = "from cfnlint.runner import main; main()"  # as the command does, which need not be on PATH
    command = [sys.executable, "-c", program, "--regions", *REGIONS, "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5 * HANG_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
