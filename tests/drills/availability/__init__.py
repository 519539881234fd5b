"""Measures the share of correct answers, and checks for losses, while parts of a cluster are killed and frozen."""
