"""Made-up texts for tests: references drawn from few words, outputs that copy parts of them."""

import numpy as np

WORDS = np.array("a the great sound price strap tone strings is are for my guitar very good , .".split())


def random_texts(rng: np.random.Generator, rows: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the words of generated texts and of references; some generated texts are empty or very short."""
    reference = [list(rng.choice(WORDS, rng.integers(3, 18))) for _ in range(rows)]
    generated = []
    for text in reference:
        start, end = sorted(rng.integers(0, len(text) + 1, 2))
        generated.append([str(w) for w in (*rng.choice(WORDS, rng.integers(0, 6)), *text[start:end])])
    return generated, [[str(w) for w in text] for text in reference]
