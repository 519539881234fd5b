"""How the service behaves under more load than it can serve, and what well-behaved clients see of it."""
