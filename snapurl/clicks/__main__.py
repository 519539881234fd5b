import sys

from snapurl.clicks.consumer import main

sys.exit(main())
