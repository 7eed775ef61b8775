"""Pickled lists of plain values, read without running anything: whatever names a class or a function is refused."""

from __future__ import annotations

import pickle
from typing import Any, NoReturn

from rec.data.tables.files import UNREADABLE, locate, opened
from rec.errors import DataError


class PlainUnpickler(pickle.Unpickler):
    """Unpickles lists, tuples, dicts, sets, texts, bytes and numbers; all of them have opcodes of their own."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse whatever is looked up by name: calling it is how a pickle runs code."""
        raise DataError(
            f"refused: the pickle asks for {module}.{name}, and only lists, dicts, tuples, texts and numbers are read; "
            "convert it to JSON lines where you trust it"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse objects that are kept elsewhere."""
        raise DataError(f"refused: the pickle refers to an object {pid!r} outside of it")


def read_plain(uri: str) -> Any:
    """Return the value of a pickle of plain values.

    Raises:
        DataError: the file cannot be read, is no pickle, or asks for a class or function.
    """
    location = locate(uri, (".pickle", ".pkl"))
    try:
        with opened(location) as file:
            return PlainUnpickler(file).load()
    except DataError as error:
        raise DataError(f"{location.name}: {error}") from None
    except (pickle.UnpicklingError, ValueError, TypeError, IndexError, KeyError, AttributeError, *UNREADABLE) as error:
        raise DataError(f"{location.name}: no pickle that can be read ({error})") from error
