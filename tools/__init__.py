"""The operator's side: `snapurl-reshard` and the migrator."""
