"""When a failed request is sent again."""

from __future__ import annotations

from random import Random

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


def pause_s(num_failures: int, random: Random) -> float:
    """Seconds before the next attempt: anything up to a bound that doubles with each failure.

    Full jitter: the requests that a dead replica lost do not come back all at once (Brooker, "Exponential backoff
    and jitter", AWS 2015).
    """
    bound = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(num_failures, 30))
    return random.uniform(0.0, bound)
