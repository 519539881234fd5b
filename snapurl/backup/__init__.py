"""Backups of a whole cluster, by its rows and not by its files, and what is made of them again."""
