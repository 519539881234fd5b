"""Request and response bodies: their models, checks and texts."""
