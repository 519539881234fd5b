"""The handlers of the screens, one module each. They call the services, never the stores."""
