"""The keys of whoever asks a model over HTTP: where, how often, and what that may cost."""

from __future__ import annotations

from pydantic import Field

from rec.strict import Strict

HTTP_STARTS = ("http://", "https://")
HTTP_KEYS = ("url", "key", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout_s", "retries")
"""Keys of requests alone."""
BUDGET_KEYS = ("budget_tokens", "budget_money", "input_price", "tokenizer", "cache")
"""Keys of what is asked, by whatever way."""


class RequestsConfig(Strict):
    """How a server is asked."""

    url: str = ""
    """Address that takes the requests."""
    key: str = ""
    """Environment variable with what is sent as `Authorization: Bearer`; "" sends none."""
    concurrency: int = Field(16, ge=1)
    """Requests at the same time."""
    requests_per_minute: int = Field(0, ge=0)
    """0 sets no limit ..."""
    tokens_per_minute: int = Field(0, ge=0)
    """... nor does it here; tokens of what is asked and answered."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds without an answer, streamed ones without a further word, after which a request is made again."""
    retries: int = Field(6, ge=0)
    """How often a request that failed is made again, after waits that double, or as long as the server asks for."""
    budget_tokens: int = Field(0, ge=0)
    """Tokens asked and answered that a command may use at most; 0 sets no limit. Answers in the cache cost none."""
    budget_money: float = Field(0.0, ge=0)
    """The same in the unit of the prices; 0 sets no limit."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million tokens of what is asked."""
    tokenizer: str = ""
    """Counts tokens beforehand: name or path of a tokenizer; "" takes four characters for a token."""
    cache: str = ""
    """Folder of all answers by what was asked, on a local disk, good for any number of data sets and commands at once;
    "" is `answers` beside the data set's folder."""
