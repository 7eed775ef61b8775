"""Tables of rows that a model reads beside its weights: on its device where they fit, else mapped into host memory.

Letters: X rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rec.transfer import rows_of_host, sent

SHARE = 0.25
"""Share of what is free of a device's memory, when a model first reads there, that its tables may take."""


class InputTables(dict[str, Tensor]):
    """Tables on the host by name, each (rows, ...), of which those that fit are kept on a device that asks for rows.

    They are inputs: no part of a model's weights or checkpoints, and not moved with it.
    """

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        super().__init__(tables)
        self.kept: dict[torch.device, dict[str, Tensor]] = {}

    def on(self, device: torch.device) -> Mapping[str, Tensor]:
        """Return the tables that are kept on a device: the smallest first, as long as all together fit."""
        if device.type == "cpu":
            return self if _room(device) is None else {}
        if device not in self.kept:
            room, kept = _room(device), dict[str, Tensor]()
            for name, table in sorted(self.items(), key=lambda entry: entry[1].nbytes):
                room = None if room is None else room - table.nbytes
                if room is None or room >= 0:
                    kept[name] = table.to(device)
            self.kept[device] = kept
        return self.kept[device]

    def whole(self, name: str, device: torch.device) -> Tensor:
        """Return a whole table on a device."""
        kept = self.on(device)
        return kept[name] if name in kept else sent(self[name], device)

    def rows(self, wanted: Mapping[str, Tensor], instead: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return rows of tables by name, (X, ...) each, on the device of the indices.

        The host waits once where tables lie there, for the indices of all of them, and not at all where none does.

        Args:
            wanted: The indices (X,) that each table is asked for, all on one device.
            instead: Tables of the host that are read in the place of those of their names.
        """
        instead, far = instead or {}, list[str]()
        found: dict[str, Tensor] = {}
        for name, index_X in wanted.items():
            kept = self.on(index_X.device)
            if name in kept and name not in instead:
                found[name] = kept[name][index_X]
            else:
                far.append(name)
        if not far:
            return found
        tables = [instead[name] if name in instead else self[name] for name in far]
        return found | dict(zip(far, rows_of_host(tables, [wanted[name] for name in far]), strict=True))


def _room(device: torch.device) -> int | None:
    """Return the bytes that tables may take on a device; None where they take none of its own."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(SHARE * free)
