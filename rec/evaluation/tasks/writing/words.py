"""How texts are cut into words before they are scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

END = "<eos>"
_SUFFIX = re.compile(r"'s|'m|'ve|n't|'re|'d|'ll")
_BRACKET = re.compile(r"[()]")
_RUN = re.compile(r",+|:+|;+|\.+|!+|\?+")
_SIGN = {",": " , ", ":": " , ", ";": " . ", ".": " . ", "!": " ! ", "?": " ? "}


def until_end(text: str, *, end: str = END) -> str:
    """Return the words of a generated text before its first end word, one blank between them.

    `until_end("good  strings <eos> good")` is "good strings". Source: PETER.
    """
    words = text.split()
    return " ".join(words[: words.index(end)] if end in words else words)


def first_words(text: str, *, number: int) -> str:
    """Return the first words of a text, one blank between them; PETER cuts references to 15.

    `first_words("a b  c", number=2)` is "a b".
    """
    return " ".join(text.split()[:number])


def spaced(text: str) -> str:
    """Return a text with blanks around its signs and before its suffixes, as PEPLER and GaVaMoE score it.

    A blank goes before 's 'm 've n't 're 'd 'll; brackets stand alone; a run of commas or of colons becomes one comma,
    a run of semicolons or of full stops one full stop, a run of ! or ? one of its kind; runs of blanks become one.
    `spaced("It's (very) good...don't wait!!")` is "It 's ( very ) good . do n't wait !".
    """
    text = _SUFFIX.sub(r" \g<0>", text)
    text = _BRACKET.sub(r" \g<0> ", text)
    text = _RUN.sub(lambda run: _SIGN[run[0][0]], text)
    return re.sub(" +", " ", text).strip()


def ngrams(words: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """Return the runs of `order` words in a text, repeated ones each time.

    `ngrams(["a", "b", "a"], 2)` gives ("a", "b") and ("b", "a"); a text shorter than `order` has none.
    """
    return zip(*(words[start:] for start in range(order)), strict=False)
