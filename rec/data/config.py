"""The keys of `[data]`: where data come from, what is kept, how it is split, and what is made of texts and pictures."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from rec.data.modalities.config import ModalitiesConfig
from rec.data.modalities.requests_config import BUDGET_KEYS, HTTP_KEYS, HTTP_STARTS, RequestsConfig
from rec.errors import ConfigError
from rec.strict import Needs, Strict, alike, check_whole, resolve

TABLES = "rec.data.sources.tables:Tables"
MODALITIES = ("narrative", "dialogue", "visual", "set", "audio", "pace", "direction", "acting", "poster")
"""The nine texts per film of MSMRec (table 2)."""


class FilterConfig(Strict):
    """Which records are kept; what is dropped is counted by reason."""

    minimum_rating: float | None = None
    """Records with a lower rating are dropped."""
    minimum_item_count: int = Field(0, ge=0)
    """Items with fewer records are dropped first ..."""
    minimum_user_count: int = Field(0, ge=0)
    """... then users with fewer; 0 takes what the split needs: 4 for leave-one-out, else 1."""
    core: int = Field(0, ge=0)
    """Users and items with fewer records are dropped, again and again until none is left (k-core)."""
    repeats: Literal["", "keep", "once"] = ""
    """What becomes of several records of one user and item: "keep" counts those that differ in time, "once" the first
    alone; "" keeps them where a split goes by time, and takes the first elsewhere."""
    required: tuple[Literal["text", "image"], ...] = ()
    """Modalities without which an item is left out."""
    unseen: tuple[str, ...] | None = None
    """Entities ("user", "item") that are kept, in the order of their table, though no record names them; unset is as
    the source has it. The others are those that records name, in the order of their ids."""
    maximum_unknown_share: float = Field(0.05, ge=0, le=1)
    """Share of records that may name nobody of a whole table of users or items; more is an error."""
    minimum_known_share: float = Field(0.1, ge=0, le=1)
    """Share of users, and of items, that must be in a row of their table where there is one; less is an error."""


class SplitConfig(Strict):
    """Which records are for training, validation and test."""

    protocol: Literal["leave-one-out", "ratio", "warm", "mmrec", "subjects", "time", "given"] = "leave-one-out"
    """"leave-one-out": of each user the last record for test, the one before for validation. "ratio": shares of each
    user's records at random, with cold users and items. "warm": shares of all records at random, of users and items
    that all have a record of training. "mmrec": 8:1:1 within each user, rounded as MMRec does.
    "subjects": shares of users with all their records; the last one is to be found, the earlier ones are known. "time":
    nothing after a point in time is trained on. "given": as the source has it."""
    validation: float = Field(0.1, gt=0, lt=0.5)
    """Share for validation (ratio, warm, subjects, time) ..."""
    test: float = Field(0.2, gt=0, lt=0.5)
    """... and for test."""
    validation_from: str | int | float | None = None
    """Of protocol "time": where validation begins, as a date or in the source's own unit, in place of a share ..."""
    test_from: str | int | float | None = None
    """... and where test begins."""
    cold_users: float = Field(0.0, ge=0, lt=0.5)
    """Of protocol "ratio": share of users without a training record; half of them are in validation, half in test."""
    cold_items: float = Field(0.0, ge=0, lt=0.5)
    """Of protocol "ratio": share of items without a training record."""
    known_in_test: Literal["", "train", "train and val"] = ""
    """What of a user is known when test is answered: "train" leaves validation's items among those to be ranked, as
    published tables on graphs do; "" is that for "mmrec" and "given", and both for the others."""
    seed: int = 0
    """Of what is drawn."""

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _dates_are_text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date) else value

    @property
    def hides_validation(self) -> bool:
        """Whether test knows nothing of validation."""
        by_default = self.protocol in ("mmrec", "given")
        return self.known_in_test == "train" or (not self.known_in_test and by_default)

    @model_validator(mode="after")
    def _keys_have_effect(self) -> Self:
        uses = {
            "validation": ("ratio", "warm", "subjects", "time"), "test": ("ratio", "warm", "subjects", "time"),
            "validation_from": ("time",), "test_from": ("time",),
            "cold_users": ("ratio",), "cold_items": ("ratio",), "seed": ("ratio", "warm", "mmrec", "subjects"),
        }  # fmt: skip
        for key, protocols in uses.items():
            if self.protocol not in protocols and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: has no effect on {self.protocol!r}, only on {', '.join(protocols)}")
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from, test_from: one needs the other")
        shares = [key for key in ("validation", "test") if getattr(self, key) != type(self).model_fields[key].default]
        if shares and self.test_from is not None:
            raise ValueError(f"{shares[0]}: has no effect beside validation_from and test_from")
        return self


OFFLINE, ENDPOINT = ("tfidf", "hashing"), "endpoint"
"""Encoders of texts that are no model of transformers."""


class EndpointConfig(RequestsConfig):
    """A server of embeddings, by OpenAI's protocol: many texts a request, a vector for each."""

    model: str = ""
    """What the server calls it."""
    dimensions: int = Field(0, ge=0)
    """Numbers of a vector that the server is asked for; 0 takes the model's own."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.budget_money and not self.input_price:
            raise ValueError("budget_money: has no effect without input_price")
        return self


class TextConfig(Strict):
    """How K texts per item are written and encoded."""

    NEEDS: ClassVar[Needs] = {
        "width": {"encoder": list(OFFLINE)},
        "batch_size": {"encoder": {"not": list(OFFLINE)}},
        "endpoint": {"encoder": [ENDPOINT]},
        **alike(("pooling", "max_tokens", "actors"), {"encoder": {"not": [*OFFLINE, ENDPOINT]}}),
    }

    modalities: tuple[str, ...] = MODALITIES
    """Names of text columns of the items' table are taken as they are; others are written by template."""
    encoder: str = "tfidf"
    """"tfidf" (TF-IDF and truncated SVD, offline), "hashing" (words to places, stateless), "endpoint" (a server of
    embeddings), or the name or path of a model of transformers or sentence-transformers."""
    endpoint: EndpointConfig = EndpointConfig()
    """The server; its `url` takes embeddings, such as "http://localhost:8000/v1/embeddings"."""
    width: int = Field(128, ge=2)
    """Components the SVD keeps, or places of hashing; models have a width of their own."""
    pooling: Literal["mean", "cls", "own"] = "mean"
    """Of a transformers model: the mean over tokens that are no padding, the state of the first one, or what the
    files of sentence-transformers beside it say (where there are none, the mean)."""
    batch_size: int = Field(64, ge=1)
    """Texts per pass of a model, or per request."""
    max_tokens: int = Field(128, ge=8)
    """Tokens kept of a text, at most as many as the model's files of sentence-transformers say."""
    actors: int = Field(1, ge=1)
    """Copies of a transformers encoder that work at the same time."""
    user_items: int = Field(0, ge=0)
    """First items of training that a text of each user names beside what is known of the user; its vectors, and those
    of one text per item, lie in one space (KAR's knowledge, which takes 30). 0 writes no texts of users."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.encoder.startswith(HTTP_STARTS):
            raise ValueError(f'encoder: {self.encoder!r} is an address: set encoder="endpoint" and endpoint.url')
        if self.encoder == ENDPOINT and not self.endpoint.url.startswith(HTTP_STARTS):
            found = self.endpoint.url
            raise ValueError(f"endpoint.url: needs an address that starts with http:// or https://, got {found!r}")
        if self.encoder == ENDPOINT and not self.endpoint.model:
            raise ValueError("endpoint.model: needs the name of a model")
        return self


class TextEncodingConfig(Strict):
    """How texts become numbers: frozen vectors, tokens for an encoder that is trained, or both."""

    NEEDS: ClassVar[Needs] = {
        "width": {"encoder": ["tfidf", "hashing"]},
        "pooling": {"encoder": {"not": ["", "tfidf", "hashing"]}},
        "vocabulary": {"tokenizer": ["local", "bytes"]},
        "max_tokens": ({"tokenizer": {"not": [""]}}, {"encoder": {"not": ["", "tfidf", "hashing"]}}),
    }

    encoder: str = ""
    """Frozen: "tfidf" (with truncated SVD), "hashing" (words to places, stateless), or the name or path of a
    transformers model; empty makes no vectors."""
    pooling: Literal["cls", "mean", "own"] = "cls"
    """Of a transformers model: the last state of the first token, the mean over tokens that are no padding, or what
    files of sentence-transformers beside it say."""
    tokenizer: str = "local"
    """"local" (WordPiece learned from training texts), "bytes" (byte-level BPE, which gives back texts as they were,
    for models that write; learned from texts of records), or the name or path of a tokenizer; empty makes no tokens.

    Where users, items or events have no texts, there are neither vectors nor tokens."""
    vocabulary: int = Field(8000, ge=100)
    """Pieces of a tokenizer that is learned."""
    max_tokens: int = Field(64, ge=8)
    """Tokens kept of a text, for both."""
    max_characters: int = Field(20_000, ge=100)
    """Longer texts are cut there and counted."""
    width: int = Field(128, ge=2)
    """Components that tfidf keeps, or places of hashing."""


class ImageEncodingConfig(Strict):
    """How pictures become numbers: frozen vectors, pixels for an encoder that is trained, or both."""

    NEEDS: ClassVar[Needs] = {"size": {"pixels": [True]}}

    encoder: str = ""
    """Frozen: "raw" (8 x 8 colours and a histogram), or the name or path of a ViT or CLIP; empty makes no vectors."""
    pixels: bool = True
    """Keeps the decoded pixels, which training end to end, robustness checks and reports need."""
    size: int = Field(32, ge=8, le=1024)
    """Width and height of the kept pixels."""
    thumbnail: int = Field(96, ge=0)
    """Largest side of the pictures that people are shown; 0 keeps none."""
    max_pixels: int = Field(25_000_000, ge=10_000)
    """Larger pictures count as bad, unless they are JPEG, which is decoded at a smaller scale."""


class EncodeConfig(Strict):
    """How texts and pictures of users and items, or texts of events and their entities, become numbers."""

    text: TextEncodingConfig = TextEncodingConfig()
    image: ImageEncodingConfig = ImageEncodingConfig()
    maximum_bad_share: float = Field(0.05, ge=0, le=1)
    """Share of bad pictures above which preparing stops with an error."""
    shard_items: int = Field(2048, ge=1)
    """Users, items or events per shard, the unit that is encoded by one actor at a time and is not encoded again when a
    job goes on."""
    batch_size: int = Field(32, ge=1)
    """Texts or pictures per pass of a frozen encoder."""
    actors: int = Field(1, ge=1)
    """Copies of the encoders that work at the same time."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """Fractions allowed; torch gets as many threads, at least one."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPUs, or a share of one, on which encoders of `transformers` work; 0 keeps them on the CPU, though a GPU is
    visible."""


class ContentConfig(Strict):
    """Vectors of items by modality and the graphs of items that are alike; a source's own ones are always taken."""

    modalities: tuple[Literal["text", "image"], ...] = ()
    """Whose frozen vectors (`[data.encode]`) are taken beside those of the source."""
    length: Literal["given", "unit"] = "given"
    """Vectors as they are, or each divided by its length; those of zeros stay."""
    neighbours: int = Field(10, ge=1)
    """Nearest items by cosine, the item itself not among them, where a modality comes without a graph."""
    search: Literal["exact", "ivf"] = "exact"
    """Every pair in blocks, or faiss's inverted lists, which miss some neighbours and pay from 10^5 items on."""


WORK_KEYS = (
    "root", "views", "shard_rows", "text.batch_size", "text.actors", "encode.shard_items", "encode.batch_size",
    "encode.actors", "encode.cpus_per_actor", "encode.gpus_per_actor", "modalities.batch",
    *(f"text.endpoint.{name}" for name in (*HTTP_KEYS, *BUDGET_KEYS)),
    *(
        f"modalities.writer.{name}"
        for name in (
            *HTTP_KEYS, *BUDGET_KEYS, "stream", "output_price", "batch_size", "actors", "cpus_per_actor",
            "gpus_per_actor",
        )
    ),
)  # fmt: skip
"""Keys of `[data]` that say where and how the work is done, and change nothing in the data."""


class DataConfig(Strict):
    """The prepared data set and what it is made from."""

    root: str = Field(min_length=1)
    """Folder made by `rec prepare`; holds manifest.json."""
    source: str = TABLES
    """Import path `package.module:Class` of what reads users, items and records."""
    read: SerializeAsAny[Strict] = Strict()
    """The source's own keys."""
    filter: FilterConfig = FilterConfig()
    split: SplitConfig = SplitConfig()
    text: TextConfig | None = None
    """K texts per item; unset writes none."""
    modalities: ModalitiesConfig | None = None
    """How those texts are written that no source brings; unset, the templates of films write them."""
    encode: EncodeConfig | None = None
    """Texts and pictures of users and items as numbers; unset encodes none."""
    content: ContentConfig = ContentConfig()
    views: tuple[str, ...] = ()
    """Views that `rec prepare` makes beside that of the config's system; others are made when first needed."""
    shard_rows: int = Field(4096, ge=1)
    """Rows per Parquet file of a split."""

    @model_validator(mode="before")
    @classmethod
    def _read_is_the_sources(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not isinstance(table.get("source", TABLES), str):
            return table
        keys, read = source_keys(table.get("source", TABLES)), table.get("read", {})
        return table if isinstance(read, keys) else table | {"read": keys.model_validate(read)}

    @model_validator(mode="after")
    def _modalities_are_texts(self) -> Self:
        if self.modalities is None:
            return self
        if self.text is None:
            raise ValueError("modalities: has no effect without data.text, which tells the modalities that are written")
        own = self.modalities
        named: dict[str, dict[str, Any]] = {
            "templates": own.templates, "prompt.about": own.prompt.about,
            "faithfulness.thresholds": own.faithfulness.thresholds,
        }  # fmt: skip
        for key, table in named.items():
            if unknown := [name for name in table if name not in self.text.modalities]:
                known = ", ".join(self.text.modalities)
                raise ValueError(f"modalities.{key}.{unknown[0]}: is none of data.text.modalities ({known})")
        return self


def source_keys(name: str) -> type[Strict]:
    """Return the keys that a source has in `[data.read]`.

    Raises:
        ConfigError: there is no such source.
    """
    source = resolve(name, "data.source")
    keys = getattr(source, "Config", None)
    if not (isinstance(source, type) and isinstance(keys, type) and issubclass(keys, Strict)):
        raise ConfigError(f"data.source: {name!r} is no source: expected a class with Config")
    check_whole(source, name, "data.source")
    return keys
