"""`rec export`: a run's best checkpoint as an artifact, with its example and files for clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rec.cluster.service import files_of_service
from rec.config import RunConfig
from rec.data.prepared import open_prepared
from rec.data.stream import to_columns
from rec.errors import ConfigError, DataError, RequestError
from rec.serving.answers import Answerer
from rec.serving.artifact import Artifact, export_run
from rec.serving.example import invented_row, make_example

TRIED = 100
"""Rows of the test split that are looked through for one that a request can say."""


def export(config: RunConfig, target: str, say: Callable[[str], None]) -> Artifact:
    """Write a run's artifact into a folder, in the place of what was there, and return it.

    Raises:
        ConfigError: the folder is no local path, or the index does not fit the system.
        CheckpointError, DataError: the run or its data set is missing or damaged.
    """
    if "://" in target:
        raise ConfigError(f"{target}: an artifact is written to a local folder; copy it from there")
    path = Path(target).absolute()

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

    return export_run(config, target, finish, files_of_service(path.name, str(path), config.serve.deadline_ms), say)
