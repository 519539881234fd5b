"""Runs docker-compose.yml on a Docker engine of its own: replicas, upgrades, kills, shards, under traffic."""
