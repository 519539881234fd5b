"""A change of the topology: what is asked for, what would stop it, what it would cost."""
