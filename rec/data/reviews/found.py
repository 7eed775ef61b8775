"""From tables of reviews to what each is about: a pass over their pieces, and the choice among what it found.

1. search    every piece is cleaned and its candidates are written, in processes of their own
2. choose    of each review one candidate; the texts themselves are left behind

Letters: C candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.reviews.finder import FindConfig, Finder, chosen
from rec.data.schema import Workplace
from rec.data.tables import ForeignTable, Kind, Piece, TableFormat, TimeForm, notes_of, pieces, read, time_form
from rec.data.writing import write_table
from rec.errors import ConfigError, DataError
from rec.storage import Storage
from rec.strict import resolve

ROWS_PER_PIECE = 1 << 15
ROWS_AT_ONCE = 1 << 12
FOLDER = "found"
CANDIDATES, REVIEWS = "candidates", "reviews"
KINDS = {
    "user": Kind.ID, "item": Kind.ID, "rating": Kind.NUMBER, "text": Kind.TEXT, "time": Kind.TIME, "part": Kind.PART,
    "feature": Kind.TEXT, "opinion": Kind.TEXT,
}  # fmt: skip
"""What a table of reviews may hold, by our names."""
EXTRACTED = pa.schema(
    {
        "review": pa.int32(), "sentence": pa.int32(), "text": pa.string(), "feature": pa.string(),
        "opinion": pa.string(), "score": pa.int8(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SearchTask:
    """One piece of a table of reviews."""

    piece: Piece
    number: int
    columns: Mapping[str, str]
    format: TableFormat
    times: Mapping[str, TimeForm]
    root: str
    find: FindConfig | None
    """None where the table itself tells features."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What was seen in a piece."""

    rows: int
    dropped: Counter[str]
    features: Counter[str]


def found_in(place: Workplace, table: ForeignTable, columns: Mapping[str, str], find: FindConfig) -> FoundReviews:
    """Return the reviews of a table that are about a feature, with the sentence that says so.

    Args:
        place: Where what lies between the passes is written, and what works.
        table: The reviews.
        columns: The table's column of each of ours: user, item, rating, text, and where it has them time, part,
            feature and opinion. With a feature, the text is the sentence.
        find: How features are found.

    Raises:
        DataError: the table cannot be read, or no review is left.
        ConfigError: there is no such finder.
    """
    finder = resolve(find.finder, "data.read.find.finder")
    if not (isinstance(finder, type) and issubclass(finder, Finder)):
        raise ConfigError(f"data.read.find.finder: {find.finder!r} is no class below rec.data.reviews.finder:Finder")
    parts = pieces(table, ROWS_PER_PIECE)
    for note in notes_of(parts):
        place.say(note)
    times = {"time": time_form(table, columns["time"], parts)} if "time" in columns else {}
    given = "feature" in columns
    root = place.storage.below(FOLDER)
    root.delete("")
    tasks = [
        SearchTask(piece, n, columns, table.format, times, root.uri_of(""), None if given else find)
        for n, piece in enumerate(parts)
    ]
    seen = place.runner.map(search, tasks, "prepare: find features")
    dropped = sum((one.dropped for one in seen), Counter[str]())
    counts = sum((one.features for one in seen), Counter[str]())
    tables = []
    for number, _ in enumerate(parts):
        kept = _chosen(root, number, counts, 0 if given else find.minimum_feature_count)
        dropped["event without a feature"] += kept[1]
        tables.append(kept[0])
    if not any(map(len, tables)):
        told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()) if count)
        raise DataError(f"{table.name}: no review is left of {sum(one.rows for one in seen):,}: {told}")
    place.say(f"features: {len(counts):,} words are candidates; {_examples(counts)}")
    root.delete("")
    return FoundReviews(pa.concat_tables(tables), dropped, times.get("time"))


@dataclass(frozen=True, slots=True)
class FoundReviews:
    """Reviews with what they are about."""

    table: pa.Table
    """user, item, rating, text, feature, opinion, score, and time and part where the input has them."""
    dropped: Counter[str]
    form: TimeForm | None
    """What times are."""


def _examples(counts: Mapping[str, int]) -> str:
    some = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
    return "most often named: " + ", ".join(f"{name} ({count:,})" for name, count in some)


def search(task: SearchTask) -> Searched:
    """Write what a piece's reviews are, and the candidates of each."""
    finder = None if task.find is None else resolve(task.find.finder)(task.find)
    wanted = {ours: (theirs, KINDS[ours]) for ours, theirs in task.columns.items()}
    dropped: Counter[str] = Counter()
    kept, extracted, rows, start = [], [], 0, 0
    for table in read(task.piece, wanted, task.format, rows_at_once=ROWS_AT_ONCE, times=task.times):
        rows += len(table)
        table = _clean(table.drop_columns(["row"]), dropped)
        if finder is None:
            extracted.append(_given(table, start))
        else:
            extracted.append(_extracted(finder, table["text"].to_pylist(), start))
        kept.append(table.drop_columns([n for n in ("text", "feature", "opinion") if n in table.column_names]))
        start += len(table)
    storage = Storage(task.root)
    candidates = pa.concat_tables([EXTRACTED.empty_table(), *extracted])
    write_table(storage, f"{CANDIDATES}-{task.number:06d}.parquet", candidates)
    if kept:
        write_table(storage, f"{REVIEWS}-{task.number:06d}.parquet", pa.concat_tables(kept))
    values = candidates["feature"].value_counts()
    names, counts = values.field("values").to_pylist(), values.field("counts").to_pylist()
    return Searched(rows, dropped, Counter(dict(zip(names, counts, strict=True))))


def _clean(table: pa.Table, dropped: Counter[str]) -> pa.Table:
    """Return the reviews that say who rated what how, and why; others are counted by the first that is missing."""
    needed = [name for name in table.column_names if name not in ("opinion", "part")]
    for name in ("user", "item", "rating", *sorted(set(needed) - {"user", "item", "rating"})):
        there = pc.is_valid(table[name])
        if pa.types.is_floating(table[name].type):
            there = pc.and_kleene(there, pc.is_finite(table[name]))
        elif pa.types.is_string(table[name].type):
            there = pc.and_kleene(there, pc.not_equal(pc.utf8_trim_whitespace(table[name]), ""))
        there = pc.fill_null(there, False)
        word = "a feature" if name == "feature" else name
        dropped[f"event without {word}"] += len(table) - int(pc.sum(there).as_py() or 0)
        table = table.filter(there)
    return table


def _extracted(finder: Finder, texts: list[str], start: int) -> pa.Table:
    columns: dict[str, list[object]] = {name: [] for name in EXTRACTED.names}
    for review, text in enumerate(texts, start):
        sentence, before = -1, None
        for one in finder.candidates(text):
            sentence, before = sentence + (one.sentence != before), one.sentence
            for name, value in zip(
                EXTRACTED.names, (review, sentence, one.sentence, one.feature, one.opinion, one.score), strict=True
            ):
                columns[name].append(value)
    return pa.table({name: pa.array(columns[name], EXTRACTED.field(name).type) for name in EXTRACTED.names})


def _given(table: pa.Table, start: int) -> pa.Table:
    """Return the features that a table tells as candidates, one of each review."""
    number = pa.array(np.arange(start, start + len(table)), pa.int32())
    none = pa.nulls(len(table), pa.string())
    opinion = table["opinion"] if "opinion" in table.column_names else none
    columns = [number, pa.array(np.zeros(len(table)), pa.int32()), table["text"], table["feature"], opinion]
    return pa.table([*columns, pa.nulls(len(table), pa.int8())], schema=EXTRACTED)


def _chosen(root: Storage, number: int, counts: Mapping[str, int], least: int) -> tuple[pa.Table, int]:
    """Return the reviews of a piece that are about a feature, and how many are about none."""
    with root.open(f"{CANDIDATES}-{number:06d}.parquet") as file:
        candidates = pq.read_table(file)
    if not root.exists(f"{REVIEWS}-{number:06d}.parquet"):
        return candidates.slice(0, 0), 0
    with root.open(f"{REVIEWS}-{number:06d}.parquet") as file:
        reviews = pq.read_table(file)
    names = candidates["feature"].combine_chunks().dictionary_encode()
    count = np.array([counts[name] for name in names.dictionary.to_pylist()], np.int64)
    count_C = count[names.indices.to_numpy()] if len(candidates) else np.zeros(0, np.int64)
    review_C, sentence_C = candidates["review"].to_numpy(), candidates["sentence"].to_numpy()
    picked = candidates.take(pa.array(chosen(review_C, sentence_C, count_C, least)))
    table = reviews.take(picked["review"])
    for name in ("text", "feature", "opinion", "score"):
        table = table.append_column(name, picked[name])
    return table, len(reviews) - len(table)
