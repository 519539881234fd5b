"""Shlink's REST API at /rest/v1 to v3, for the clients of that program. Nothing else here needs this package.

What differs from Shlink, and why, is in docs/use/shlink.md.
"""
