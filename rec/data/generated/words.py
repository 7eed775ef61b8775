"""Words of generated reviews."""

from __future__ import annotations

OPENINGS = (
    "for the money", "when i play music", "on my desk", "after a long week", "to be honest", "as a gift",
    "out of the box", "in my kitchen", "on the road", "for my daughter", "after two months",
    "compared with others", "every morning",
    "at the office", "in the garden", "for a beginner", "as an expert", "during the winter", "on weekends", "so far",
)  # fmt: skip
FEATURES = (
    "price", "sound", "design", "battery", "screen", "weight", "size", "colour", "handle", "cable", "lid", "motor",
    "manual", "packaging", "warranty", "delivery", "service", "texture", "smell", "taste", "fabric", "zip", "strap",
    "buttons", "speed", "grip", "finish", "hinge", "lens", "zoom", "memory", "software", "menu", "charger", "plug",
    "blade", "filter", "pump", "seal", "wheels", "frame", "seat", "pedal", "brakes", "lamp", "timer", "display",
    "keyboard", "tone", "bass", "strings", "tuner", "stand", "case", "lining", "pocket", "sole", "heel", "fit", "cut",
    "pattern", "engine", "shutter", "volume",
)  # fmt: skip
KINDS = ("speaker", "radio", "phone", "blender", "jacket", "guitar", "camera", "bicycle")
VERBS = ("is", "seems", "looks", "feels", "turned out", "proved", "has always been", "stays", "became", "remains")
OPINIONS = (
    ("poor", "awful", "bad", "flimsy", "weak", "cheap", "disappointing", "terrible", "useless", "shoddy", "lousy",
     "dull"),
    ("fine", "average", "acceptable", "ordinary", "decent", "passable", "usual", "tolerable"),
    ("great", "excellent", "solid", "perfect", "superb", "lovely", "brilliant", "nice", "fantastic", "sturdy",
     "reliable", "outstanding"),
)  # fmt: skip
"""Of low, middle and high ratings."""
CLOSINGS = (
    ".",
    "!",
    ", really .",
    ", i think .",
    ", as they say .",
    ", no doubt .",
    ", my friends agree .",
    "indeed .",
)
CONSONANTS, VOWELS = "bdfgjklmnprstvwxyzhc", "aeiou"
SYLLABLES = tuple(c + v for c in CONSONANTS for v in VOWELS)
STRIDE = 617_671
"""Has no factor in common with 100 ** 3, so that every number is met once."""


def made_up(count: int) -> list[str]:
    """Return different words of three syllables that are in no language, at most 10^6."""
    number = [n * STRIDE % len(SYLLABLES) ** 3 for n in range(count)]
    return [SYLLABLES[n // 10_000] + SYLLABLES[n // 100 % 100] + SYLLABLES[n % 100] for n in number]
