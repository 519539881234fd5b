"""The HTTP side: routes, redirects, the API, and the protocol in front of Sanic."""
