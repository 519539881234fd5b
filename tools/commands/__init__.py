"""The commands of `snapurl-reshard`."""
