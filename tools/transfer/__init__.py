"""One attempt at a move: its steps, the copying and the comparing."""
