"""`python -m snapurl.clicks` is `snapurl clicks`."""

import sys

from snapurl.clicks.consumer import main

sys.exit(main())
