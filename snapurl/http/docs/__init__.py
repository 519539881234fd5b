"""OpenAPI, the page at /docs, and the start page."""
