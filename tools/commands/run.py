"""The command that runs a migrator."""

from __future__ import annotations

import logging

import click

from snapurl.errors import ConfigError
from snapurl.run.healthcheck import Address
from snapurl.store.cluster.dsn import plain_text_warning
from tools.commands.options import grace_s, settings
from tools.migrator.throttle import LANES, Throttle

log = logging.getLogger("snapurl.migrator")


@click.command("run")
@click.option(
    "--max-rows-per-second",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Rows copied per second at most; 0: no limit.",
)
@click.option(
    "--p99-ms-max",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="Slow down while the p99 of the shards is above this.",
)
@click.option(
    "--standby-lag-s-max",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Slow down while a standby lags by more than this.",
)
@click.option(
    "--service-url",
    metavar="URL",
    help="URL of the HTTP service, such as http://api:8000, for --service-p99-ms-max.",
)
@click.option(
    "--service-p99-ms-max",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="Slow down while the p99 of small requests to --service-url is above this.",
)
@click.option(
    "--lanes",
    type=click.IntRange(1, 8),
    help=f"Batches that move concurrently. Default: {LANES}, or 1 with --service-url; 1 also makes them small.",
)
@grace_s
@click.option("--until-settled", is_flag=True, help="Exit when nothing is left to do.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the metrics; 0: none.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Address for --metrics-port; 0.0.0.0: all addresses.",
)
@click.option("--json", "as_json", is_flag=True, help="Log JSON on a terminal too.")
def run(
    max_rows_per_second: float,
    p99_ms_max: float,
    standby_lag_s_max: float,
    service_url: str | None,
    service_p99_ms_max: float,
    lanes: int | None,
    grace_s: float,
    until_settled: bool,
    metrics_port: int,
    metrics_host: str,
    as_json: bool,
) -> None:
    """Run a migrator. Several may run: one is active, and another takes over within 5 s if it dies.

    SIGTERM and SIGINT stop it after the current batches. However it ends, the next one resumes its work.
    """
    import uvloop

    from snapurl.run.supervisor import stop_signals
    from snapurl.telemetry import logs, traces
    from snapurl.telemetry.metrics_port import serving
    from tools.migrator.loop import Migrator, Options

    found = settings()
    try:
        service = Address.of_url(service_url) if service_url else None
    except ValueError as error:
        raise ConfigError(f"--service-url: {service_url!r} {error}") from None
    logs.configure(found.log_level, "json" if as_json else found.log_format)
    if warning := plain_text_warning(found):
        log.warning(warning)
    traces.configure("migrator")
    lanes = lanes or (1 if service else LANES)
    throttle = Throttle(max_rows_per_second, p99_ms_max, standby_lag_s_max, service_p99_ms_max, lanes)
    migrator = Migrator(found, Options(grace_s, throttle, service))

    async def work() -> None:
        async with stop_signals() as stop, serving(metrics_host, metrics_port, migrator.fault):
            await migrator.run(stop, until_settled=until_settled)

    try:
        uvloop.run(work())
    finally:
        traces.shut_down()


COMMANDS = (run,)
