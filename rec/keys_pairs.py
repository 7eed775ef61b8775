"""The keys of `[data.pairs]`: users and items with texts, pictures and attributes, and which pairs are relevant."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rec.strict import Strict


class FoodConfig(Strict):
    """A generated set of patients and foods whose relevance follows known diet rules."""

    pairs: int = Field(10_000, ge=100, le=10_000_000)
    """Relevant pairs over all users."""
    users: int = Field(0, ge=0)
    """0 makes one per 10 pairs, at least 60."""
    foods: int = Field(0, ge=0)
    """0 makes one per 25 pairs, at least 80 and at most 5,000."""
    picture_size: int = Field(48, ge=16, le=1024)
    """Width and height of the rendered pictures, pixels."""
    missing: float = Field(0.05, ge=0, le=0.9)
    """Share of texts, pictures and attributes that are left out."""
    seed: int = 0
    shards: int = Field(8, ge=1)

    @property
    def num_users(self) -> int:
        """How many users are generated."""
        return self.users or max(self.pairs // 10, 60)

    @property
    def num_foods(self) -> int:
        """How many foods are generated."""
        return self.foods or min(max(self.pairs // 25, 80), 5_000)


class PairColumns(Strict):
    """Which columns of the user's own tables hold what."""

    user: str = "user"
    item: str = "item"
    relevance: str | None = None
    """Column of `pairs`: how relevant, such as a rating; without it every pair is relevant."""
    user_text: tuple[str, ...] = ()
    """Columns of `users`, joined to one text."""
    item_text: tuple[str, ...] = ()
    title: str | None = None
    """Column of `items` that people are shown."""
    image: str | None = None
    """Column of `items`: bytes of a picture, or its path or URI; relative paths start at the table's folder."""
    user_attributes: tuple[str, ...] = ()
    """Numbers are scaled, other values become one column each."""
    item_attributes: tuple[str, ...] = ()
    user_group: str | None = None
    """Column of `users` by which evaluation tells groups apart."""
    item_class: str | None = None
    """Column of `items`: within a class pictures are swapped to see what a wrong picture does."""
    avoid: str | None = None
    """Column of `users`: what a user must not be shown, a list or words divided by semicolons."""
    contains: str | None = None
    """Column of `items`: what an item contains of that."""


class PairTextConfig(Strict):
    """How texts become numbers: frozen vectors, tokens for an encoder that is trained, or both."""

    encoder: str = ""
    """Frozen: "tfidf" (with truncated SVD), or the name or path of a transformers model; empty makes no vectors."""
    tokenizer: str = "local"
    """"local" (WordPiece learned from training texts), or the name or path of a tokenizer; empty makes no tokens."""
    vocabulary: int = Field(8000, ge=100)
    """Words and letters of the local tokenizer."""
    max_tokens: int = Field(64, ge=8)
    """Tokens kept of a text, for both."""
    max_characters: int = Field(20_000, ge=100)
    """Longer texts are cut there and counted."""
    width: int = Field(128, ge=2)
    """Components that tfidf keeps."""


class ImageConfig(Strict):
    """How pictures become numbers: frozen vectors, pixels for an encoder that is trained, or both."""

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


class PairsConfig(Strict):
    """Where users, items and relevant pairs come from, and how they are split and encoded."""

    kind: Literal["table", "food", "hummus", "recipes", "movielens"] = "table"
    """Own tables, generated food, or a public set: HUMMUS ratings, photographed recipes with synthetic labels, ML-100K
    with posters."""
    pairs: tuple[str, ...] = ()
    """Paths of Parquet or CSV files or folders with a row per pair."""
    users: str | None = None
    """Table of users; without it users are their ids alone."""
    items: str | None = None
    """Table or folder of tables of items, one shard per file."""
    images: str | None = None
    """Folder of pictures, for public sets that come with one."""
    columns: PairColumns = PairColumns()
    food: FoodConfig = FoodConfig()
    minimum_relevance: float = 1.0
    """Pairs count as relevant from here on."""
    minimum_user_count: int = Field(1, ge=1)
    """Users with fewer relevant pairs are dropped."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the pairs of each user for validation ..."""
    test_share: float = Field(0.2, gt=0, lt=0.5)
    """... and for test."""
    cold_users: float = Field(0.0, ge=0, lt=0.5)
    """Share of users without a training pair; half of them are in validation, half in test."""
    cold_items: float = Field(0.0, ge=0, lt=0.5)
    """Share of items without a training pair."""
    seed: int = 0
    """Of the split."""
    drop_without_image: bool = False
    """Leaves out items without a picture, as the paper did."""
    maximum_bad_share: float = Field(0.05, ge=0, le=1)
    """Share of bad pictures, or of pairs with unknown ids, above which preparing stops with an error."""
    text: PairTextConfig = PairTextConfig()
    image: ImageConfig = ImageConfig()
    shard_items: int = Field(2048, ge=1)
    """Items per shard, the unit that is encoded by one actor at a time and is not encoded again when a job goes on."""
    batch_size: int = Field(32, ge=1)
    """Texts or pictures per pass of a frozen encoder."""
    actors: int = Field(1, ge=1)
    """Copies of the encoders that work at the same time."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """Fractions allowed; torch gets as many threads, at least one."""
    gpus_per_actor: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _something_is_encoded(self) -> Self:
        if self.kind == "table" and not (self.pairs and self.items):
            raise ValueError("kind 'table' needs `pairs` and `items`")
        if self.kind in ("hummus", "recipes", "movielens") and not self.items:
            raise ValueError(f"items: kind {self.kind!r} needs the folder of the data set")
        if not self.text.encoder and not self.text.tokenizer:
            raise ValueError("text: one of encoder and tokenizer must be set")
        return self
