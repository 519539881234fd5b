"""The migrator: observes, schedules, moves, and adapts its pace."""
