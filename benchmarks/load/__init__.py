"""The load suite: scenarios, measurements and reports."""
