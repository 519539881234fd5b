"""The load suite: scenarios, what is measured of them, and how it is shown."""
