"""`python -m snapurl` is `snapurl`."""

from snapurl.cli import main

main()
