"""Popularity of links: link k is requested in proportion to 1 / k**s, as in real traffic."""

from __future__ import annotations

import itertools
import random

EXPONENT = 1.0


def zipf_numbers(links: int, draws: int, seed: int, exponent: float = EXPONENT) -> list[int]:
    """Draws numbers from 0 to `links - 1`. Popular ones are spread over the range, and so over the shards."""
    rng = random.Random(seed)
    weights = list(itertools.accumulate(1 / (rank**exponent) for rank in range(1, links + 1)))
    numbers = list(range(links))
    rng.shuffle(numbers)
    return rng.choices(numbers, cum_weights=weights, k=draws)
