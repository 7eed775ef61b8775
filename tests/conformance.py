"""The conformance tests of the package, and what systems on graphs are compared by beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rec.conformance import Alone, Conformance, take

__all__ = ["Alone", "Conformance", "EveryUsersOther", "loss_of", "same_by_fanout", "take"]


class EveryUsersOther:
    """Draws the same other item for a user each time, so that what is drawn does not depend on how rows are cut."""

    def draw(self, user_N: torch.Tensor) -> torch.Tensor:
        return user_N % 7 + 12

    def with_some(self, user_N: torch.Tensor) -> None:
        """Something can be drawn for everybody."""

    def to(self, _: Any) -> EveryUsersOther:
        return self


def loss_of(system: Any, module: Any, rows: Mapping[str, Any]) -> torch.Tensor:
    """Return the weighted sum of a batch's mean terms."""
    terms = system.loss(module, system.collate(rows)).values()
    return torch.stack([term.weight * term.mean for term in terms]).sum()


def same_by_fanout(built: Callable[..., tuple[Any, Any, Any]], changes: Mapping[str, Any]) -> None:
    """Assert that loss and gradient over all neighbours are those over as many drawn ones as there are."""
    found = []
    for fanout in (0, 1000):
        system, rows, module = built(fanout=fanout, **changes)
        module.train()
        system.start_epoch(module, 0)
        torch.manual_seed(1)
        loss = loss_of(system, module, rows)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(module.parameters()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
