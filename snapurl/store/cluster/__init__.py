"""The shards as a cluster: connections, identity, router, migrations, restarts."""
