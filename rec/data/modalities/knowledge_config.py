"""The keys of what is said of items elsewhere, and of whether texts keep to it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rec.data.table_format import TableFormat
from rec.strict import Needs, Strict


class KnowledgeConfig(Strict):
    """Files that say something of items: cut into passages, indexed once, and searched for each item."""

    NEEDS: ClassVar[Needs] = {"width": {"encoder": ["tfidf", "hashing"]}}

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or folders: CSV, TSV, Parquet, JSON lines (.jsonl, .ndjson), and text (.txt, .md: paragraphs, of the title
    and year that the file's name gives as in "Heat (1995).txt")."""
    title: str = ""
    """Column of the title that a row is about; empty takes one of the usual names (title, name, ...). Without one,
    passages belong to the items whose titles they name."""
    year: str = ""
    """Column of the year; empty takes one of the usual names, else the year at the end of the title."""
    text: tuple[str, ...] = ()
    """Columns of text, joined; empty takes one of the usual names (text, overview, summary, plot, description, ...)."""
    format: TableFormat = TableFormat()
    """How tables are written, where it cannot be told."""
    rows: Literal["one", "many"] = "one"
    """How many rows of a file are about the same thing: "one" takes rows of the same title and year for different
    things, of which the likeliest is the item; "many" takes them all, such as reviews."""
    years_apart: int = Field(1, ge=0)
    """A title of a year that is further from the item's is another thing."""
    words: int = Field(100, ge=10)
    """Most words of a passage, which ends where a sentence does."""
    overlap: int = Field(20, ge=0)
    """Words of a passage that the next one of the same row repeats at most."""
    passages: int = Field(3, ge=1)
    """Most passages of an item."""
    encoder: str = "tfidf"
    """Of passages and items: "tfidf", "hashing", or the name or path of a transformers model."""
    width: int = Field(128, ge=2)
    """Components of tfidf, or places of hashing."""
    search: Literal["exact", "ivf"] = "exact"
    """Of vectors of passages without a title: all are compared, or those in faiss's nearest inverted lists."""
    shard_passages: int = Field(100_000, ge=100)
    """Passages per shard of the index, the unit that is held in memory while it is made."""

    @field_validator("paths", "text", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        """Take one path or name as a list of it."""
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _overlap_is_less(self) -> Self:
        if self.overlap * 2 > self.words:
            raise ValueError(f"overlap: at most half of words ({self.words}), got {self.overlap}")
        return self


class FaithfulnessConfig(Strict):
    """How texts are compared with what they were written from."""

    NEEDS: ClassVar[Needs] = {"entailment_tokens": {"entailment": {"not": [""]}}}

    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """Texts that score less are taken for invented; unset chooses it on the data, by inventions that are planted."""
    false_alarms: float = Field(0.05, gt=0, lt=1)
    """Share of faithful texts that the chosen threshold may take for invented."""
    entailment: str = ""
    """Name or path of a transformers model of natural-language inference, whose probability that sources entail a
    sentence is the other half of the score; empty asks none."""
    entailment_tokens: int = Field(512, ge=16)
    """Tokens of sources and sentence that the model reads."""
