"""The processes: `up`, `serve`, its workers, and what supervises them."""
