"""Which targets links may have: the list of blocked hosts, and the program that is asked of each URL."""
