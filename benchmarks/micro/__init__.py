"""Micro-benchmarks of the code that every request or every plan runs.

`make micro` times them. A plain pytest runs each once, to show that they still work.
"""
