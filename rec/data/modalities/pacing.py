"""When the next request may be made: limits per minute, waits that a server asks for, waits after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import numpy as np

MINUTE_S = 60.0
BURST_S = 1.0
"""What was not used of a limit is kept for so long: a second's requests may come at once."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 60.0
LONGEST_ASKED_S = 600.0
"""The longest wait that a server is granted at a time."""


class Limit:
    """So many units a minute, spread evenly; 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self.unit_s = MINUTE_S / per_minute if per_minute else 0.0
        self.free_s = 0.0
        """When the next unit may be taken."""

    def book(self, units: float, now_s: float) -> float:
        """Take units, and return when they may be used."""
        if not self.unit_s:
            return now_s
        start_s = max(self.free_s, now_s - BURST_S)
        self.free_s = start_s + units * self.unit_s
        return start_s

    def correct(self, units: float) -> None:
        """Take or give back what was more or less than was booked."""
        self.free_s += units * self.unit_s


class Pace:
    """The turns of one client's requests."""

    def __init__(
        self, requests_per_minute: int, tokens_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests, self.tokens, self.clock = Limit(requests_per_minute), Limit(tokens_per_minute), clock
        self.held_s = 0.0

    async def turn(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be made."""
        now_s = self.clock()
        at_s = max(self.requests.book(1, now_s), self.tokens.book(tokens, now_s))
        while (left_s := max(at_s, self.held_s) - self.clock()) > 0:
            await asyncio.sleep(left_s)

    def hold(self, seconds: float) -> None:
        """Let nobody ask for so long: the server said so."""
        self.held_s = max(self.held_s, self.clock() + min(seconds, LONGEST_ASKED_S))


def wait_s(attempt: int, chance: np.random.Generator) -> float:
    """Return the wait after a failure: it doubles with attempts, and no two clients come back at once."""
    longest = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
    return float(longest * chance.uniform(0.5, 1.0))


def asked_wait_s(told: str | None) -> float | None:
    """Return the seconds of a header Retry-After, which tells them or a date; None where it tells neither."""
    if not told:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
