"""The service against its OpenAPI document, with requests generated from it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.integration.http.conftest import ServiceMaker
from tests.support.waits import HANG_S

SEED = 20_300_101
EXAMPLES = 30

# A valid request may be refused for reasons that no schema expresses: an expiry in the past, a deleted link.
EXCLUDED = "positive_data_acceptance"


@pytest.mark.long
async def test_no_answer_is_a_5xx_or_outside_the_schema(make_service: ServiceMaker, tmp_path: Path) -> None:
    """No response to schemathesis, in all its phases, is a 5xx or violates the schema."""
    async with make_service() as service:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.workers[0].url}/openapi.json",
            "--url", service.workers[0].url,
            "--header", f"X-Api-Key: {service.admin_key}",
            "--exclude-checks", EXCLUDED,
            "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--continue-on-failure",
            "--generation-database", ":memory:", "--no-color",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        report, _ = await asyncio.wait_for(process.communicate(), HANG_S)
        assert process.returncode == 0, report.decode()
        assert '"level": "error"' not in service.workers[0].log.read_text()
