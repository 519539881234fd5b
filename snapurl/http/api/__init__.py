"""The handlers of the API."""
