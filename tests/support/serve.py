"""`snapurl serve`, which starts a worker that has died again at once, however often that happens."""

from __future__ import annotations

from functools import partial

from snapurl.cli import main
from snapurl.run import supervisor

vars(supervisor)["Backoff"] = partial(supervisor.Backoff, first_s=0.05, max_s=0.05)

if __name__ == "__main__":
    main()
