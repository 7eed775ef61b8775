"""What is left out, by reason, and how that is said.

A reason names one of what it counts, as "record without user": so that units are never mixed, records and events are
counted apart from users, items and ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rec.sections import plural

RECORDS = ("record", "event")
FIRST_NOUN = re.compile(r"^(repeated )?(\w+)")


def of_records(dropped: Mapping[str, int]) -> dict[str, int]:
    """Return how many records were dropped, without zeros, sorted by reason: with those kept, all that were read."""
    return {reason: int(n) for reason, n in sorted(dropped.items()) if n and _noun(reason) in RECORDS}


def of_others(dropped: Mapping[str, int]) -> dict[str, int]:
    """Return how many users, items and ids were left out, or had records dropped, sorted by reason."""
    return {reason: int(n) for reason, n in sorted(dropped.items()) if n and _noun(reason) not in RECORDS}


def in_words(dropped: Mapping[str, int]) -> str:
    """Return in words what was dropped: "97 records of 44 users with fewer than 4 records, 1 repeated record"."""
    others = of_others(dropped)
    parts = []
    for reason, count in of_records(dropped).items():
        whose = re.sub(r"^\w+ of an? ", "", reason)
        if whose in others:
            parts.append(f"{numbered(count, _noun(reason))} of {numbered(others.pop(whose), whose)}")
        else:
            parts.append(numbered(count, reason))
    parts += [numbered(count, reason) for reason, count in others.items()]
    return ", ".join(parts) or "nothing"


def numbered(count: int, reason: str) -> str:
    """Return a reason with its number: "1 user without a history", "1,200 diagnoses without a code"."""
    many = FIRST_NOUN.sub(lambda m: f"{m[1] or ''}{plural(m[2])}", reason)
    return f"{count:,} {reason if count == 1 else many}"


def least_in_words(least: int, asked: int, dropped: Mapping[str, int]) -> str:
    """Return why users need so many records where the config does not say, "" where it does or where it is nobody's."""
    few = re.compile(rf"with fewer than {least} (records|events)$")
    if asked or not any(count and few.search(reason) for reason, count in dropped.items()):
        return ""
    return (
        f"data.split.protocol needs {least} records of a user: a history, and a target of each split; more are asked "
        "for by data.filter.minimum_user_count"
    )


def _noun(reason: str) -> str:
    found = FIRST_NOUN.match(reason)
    return found[2] if found else reason
