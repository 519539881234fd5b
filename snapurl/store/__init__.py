"""What the shards store: links, keys and clicks, by fenced calls."""
