"""The errors this package raises on purpose; anything else is a bug."""

MOST_OF_A_CAUSE = 200
"""Letters that are shown of what a library says."""


def one_line(text: str) -> str:
    """Return a message of several lines as one."""
    return "; ".join(line.strip().rstrip(";") for line in text.splitlines() if line.strip())


def printable(text: str) -> str:
    """Return a text without characters that steer a terminal: they stand as escapes, but line ends and tabs."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class RecError(Exception):
    """Base of every error below; `rec` prints it as its last line and exits with 1."""


class ConfigError(RecError):
    """A config file or override is wrong; the message starts with the dotted key."""


def not_loaded(key: str, name: str, what: str, error: Exception, instead: str = "") -> ConfigError:
    """Return the error of a model or tokenizer of transformers, by name or path, that `error` kept from loading.

    `instead` is what else the key may be, such as ' or "local"'.
    """
    cause = one_line(str(error))
    cause = cause if len(cause) <= MOST_OF_A_CAUSE else f"{cause[: MOST_OF_A_CAUSE - 3]}..."
    return ConfigError(
        f"{key}: {name!r} is no {what} that loads here: expected a folder that holds one, or the name of one that is "
        f"on this machine or can be fetched{instead} ({cause})"
    )


class DataError(RecError):
    """An input file, row, column or table is not what was declared."""


class StorageError(DataError):
    """A file system fails, does not answer, or is full; what was written before is as it was."""


class CheckpointError(RecError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class TrainingError(RecError):
    """Training cannot go on: a loss that is not finite, a rank that hangs, too many failures."""


class RequestError(RecError):
    """A request to a served or evaluated model is malformed."""


class EvaluationError(RecError):
    """What was to be measured, compared or reported cannot be."""
