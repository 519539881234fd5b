"""Redirects and plain creates, answered before Sanic sees them."""
