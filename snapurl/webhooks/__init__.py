"""Webhooks: who is told of changes of links, and the sender that tells them."""
