"""What becomes of the service under more than it can do, and of those who ask for little meanwhile."""
