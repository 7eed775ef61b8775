"""Keys that would have no effect on what a source brings: refused before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from rec.data.config import ContentConfig, DataConfig, EncodeConfig, FilterConfig
from rec.data.schema import PART, TIME, EntityTable, RawData, RecordTable
from rec.data.stages.event_tables import has_texts, has_written
from rec.data.stages.split import refuse_unserved
from rec.data.tables import columns
from rec.data.texts import TEMPLATES
from rec.errors import ConfigError


def refuse_idle(config: DataConfig, raw: RawData) -> None:
    """Refuse keys that would have no effect on what the source brings.

    Raises:
        ConfigError: one would.
    """
    tables = [table for table in (raw.users, raw.items) if table is not None]
    _refuse_content(config, raw)
    told = {TIME: raw.records.time, PART: raw.records.part}
    refuse_unserved(config.split, [name for name, column in told.items() if column is not None])
    if config.encode is not None:
        for key in ("image", "maximum_bad_share") if not any(table.image for table in tables) else ():
            if getattr(config.encode, key) != getattr(EncodeConfig(), key):
                raise ConfigError(f"data.encode.{key}: has no effect: {config.source} brings no pictures here")
        text = config.encode.text
        texts = has_texts(raw) or any(table.text for table in tables)
        if not texts and text.tokenizer == "bytes" and not text.encoder and has_written(raw):
            _refuse_shape(config.encode)
            texts = True
        if not texts and (text.encoder or text.tokenizer not in ("", "local")):
            raise ConfigError(f"data.encode.text: has no effect: {config.source} brings no texts here")
        if not texts and not any(table.image or table.attributes for table in tables):
            raise ConfigError(
                f"data.encode: has no effect: {config.source} brings no texts, pictures or attributes here"
            )
    if config.content != ContentConfig() and not (raw.features or raw.graphs or config.content.modalities):
        raise ConfigError("data.content: has no effect without data.content.modalities or vectors of the source")
    if config.filter.minimum_rating is not None and isinstance(raw.records, RecordTable) and raw.records.rating is None:
        raise ConfigError(f"data.filter.minimum_rating: has no effect: {config.source} brings no ratings here")
    _refuse_shares(config, raw)
    own = config.modalities
    if config.text is not None and (own is None or not own.writer.asks):  # a model writes whatever it is asked for
        _refuse_texts(config, config.text.modalities, raw.items, () if own is None else tuple(own.templates))
    if isinstance(raw.records, RecordTable) and raw.records.part is not None and config.split.protocol != "given":
        raise ConfigError("data.split.protocol: the source brings the split; expected 'given', or no column of parts")
    for modality in config.filter.required:
        if raw.items is None or not getattr(raw.items, modality):
            raise ConfigError(f"data.filter.required: {config.source} brings no {modality} of items here")


def _refuse_shape(encode: EncodeConfig) -> None:
    """Refuse keys of how texts become tokens where a tokenizer is learned and nothing is encoded by it."""
    idle = "has no effect: the tokenizer is learned, and texts of records are encoded where they are trained on"
    if encode.shard_items != EncodeConfig().shard_items:
        raise ConfigError(f"data.encode.shard_items: {idle}")
    if encode.text.max_tokens != type(encode.text)().max_tokens:
        raise ConfigError(f"data.encode.text.max_tokens: {idle}")


def _refuse_shares(config: DataConfig, raw: RawData) -> None:
    """Refuse limits on who is unknown where nobody can be."""
    fields, unseen = FilterConfig.model_fields, config.filter.unseen
    names = ("minimum_known_share", "maximum_unknown_share")
    said = [name for name in names if getattr(config.filter, name) != fields[name].default]
    if "minimum_known_share" in said and raw.users is None and raw.items is None:
        brings = f"{config.source} brings no table of users or items here"
        raise ConfigError(f"data.filter.minimum_known_share: has no effect: {brings}")
    whole = raw.unseen if unseen is None else unseen
    if "maximum_unknown_share" in said and isinstance(raw.records, RecordTable) and not whole:
        raise ConfigError(
            "data.filter.maximum_unknown_share: has no effect without data.filter.unseen, or a source whose tables "
            "hold everybody: records may name whom they like"
        )


def _refuse_content(config: DataConfig, raw: RawData) -> None:
    """Refuse vectors of modalities that the source has of its own, or has nothing to make from."""
    for name in config.content.modalities:
        if name in raw.features:
            raise ConfigError(f"data.content.modalities: {config.source} has vectors of {name!r} of its own")
        if raw.items is None or not getattr(raw.items, name):
            raise ConfigError(f"data.content.modalities: {config.source} brings no {name} of items here")


def _refuse_texts(config: DataConfig, modalities: Sequence[str], items: EntityTable | None, own: Sequence[str]) -> None:
    """Refuse texts that are neither columns of the items nor written by template, one's own or that of films."""
    if items is None:
        raise ConfigError(f"data.text: has no effect: {config.source} brings nothing of items to write texts of here")
    known, there = [*items.columns, *own, *TEMPLATES], columns(items.table)
    for name in modalities:
        if name in there and name not in items.columns:
            paths, keep = items.table.name, "keep" in type(config.read).model_fields
            how = "; name it in data.read.keep" if keep else ""
            raise ConfigError(f"data.text.modalities: {paths} has a column {name!r}, which is not read{how}")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"data.text.modalities: {name!r} is neither a column of items that is read "
                f"({', '.join(items.columns)}) nor a text by template ({', '.join([*own, *TEMPLATES])}){hint}"
            )
