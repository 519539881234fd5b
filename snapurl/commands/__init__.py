"""The commands of `snapurl` that use the HTTP API, as any other client does."""
