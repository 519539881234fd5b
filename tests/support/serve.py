"""`snapurl serve` with a supervisor that restarts a dead worker without delay, however often it dies."""

from __future__ import annotations

from functools import partial

from snapurl.cli import main
from snapurl.run import supervisor

vars(supervisor)["Backoff"] = partial(supervisor.Backoff, first_s=0.05, max_s=0.05)

if __name__ == "__main__":
    main()
