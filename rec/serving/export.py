"""`rec export`: a run's best checkpoint as an artifact, with its example and files for clusters."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from rec.cluster.service import files_of_service
from rec.config import RunConfig
from rec.data.prepared import open_prepared
from rec.data.stream import to_columns
from rec.errors import DataError, RequestError
from rec.filesystems import absolute, last_name, open_uri
from rec.serving.answers import Answerer
from rec.serving.artifact import MANIFEST, Artifact, export_run
from rec.serving.example import invented_row, make_example
from rec.serving.remote import upload

TRIED = 100
"""Rows of the test split that are looked through for one that a request can say."""


def export(config: RunConfig, target: str, say: Callable[[str], None]) -> Artifact:
    """Write a run's artifact into a folder, in the place of what was there, and return it.

    Raises:
        ConfigError: the index does not fit the system.
        CheckpointError, DataError: the run or its data set is missing or damaged.
    """

    def finish(artifact: Artifact) -> dict[str, Any]:
        data, answerer = open_prepared(config), Answerer(artifact)
        if data.manifest.get("private"):
            return make_example(answerer, invented_row(answerer))
        rows = data.rows("test").slice(0, TRIED)
        fault = "the test split has no rows"
        for start in range(len(rows)):
            try:
                return make_example(answerer, to_columns(rows.slice(start, 1)))
            except (RequestError, ValidationError) as error:  # a row that no request can say, such as a padded one
                fault = str(error).splitlines()[-1]
        raise DataError(f"{config.data.root}: no row of the test split can be asked as a request: {fault}")

    place = absolute(target)
    extras = files_of_service(last_name(place), place, config.serve.deadline_ms)
    if "://" not in target:
        return export_run(config, target, finish, extras, say)
    open_uri(target)  # what is no storage is told before the work
    with TemporaryDirectory(prefix="rec-export-") as folder:
        made = export_run(config, f"{folder}/{last_name(target)}", finish, extras, say)
        upload(made.path, target, MANIFEST)
    return Artifact.open(target)
