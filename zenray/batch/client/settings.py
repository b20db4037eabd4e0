"""How patient a job is with its verifiers. Nothing here changes what they answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """`patience_s` is how long a job waits without any token from any verifier before it ends.

    One attempt of a request may take `attempt_timeout_s`, its next one twice that: a batch request waits while
    editors are served, and a bound that it can never keep would have it begin for ever. Scoring has
    `scored_token_timeout_s` more for every token: its work is known beforehand, and all of it is lost with an attempt.
    """

    patience_s: float = 600.0
    attempt_timeout_s: float = 300.0
    scored_token_timeout_s: float = 0.05
    failover_timeout_s: float = 10.0
    load_period_s: float = 0.25
