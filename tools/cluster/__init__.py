"""The cluster as an operator sees it: control connections, snapshots, topologies, audit log."""
