"""YOURLS' API at /yourls-api.php, for the clients of that program. Nothing else here needs this package.

What differs from YOURLS, and why, is in docs/use/yourls.md.
"""
