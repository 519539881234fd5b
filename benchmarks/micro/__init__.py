"""Micro-benchmarks of what each request or each plan passes through.

`make micro` times them; a plain pytest runs each once, so that they go on working.
"""
