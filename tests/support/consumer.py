"""`python -m tests.support.consumer lane,BARE_S,1.0 …`: the click consumer, whose constants have other values."""

from __future__ import annotations

import importlib
import sys

from snapurl.clicks.consumer import main

if __name__ == "__main__":
    for word in sys.argv[1:]:
        module, name, value = word.split(",")
        setattr(
            importlib.import_module(f"snapurl.clicks.{module}"),
            name,
            float(value) if "." in value else int(value),
        )
    sys.exit(main())
