"""The dashboard: pages at /ui that people manage links with, rendered on the server."""
