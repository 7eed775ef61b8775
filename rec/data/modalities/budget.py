"""What asking costs, and what it may cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rec.data.modalities.language_model import Usage

MILLION = 1_000_000


class BudgetSpent(Exception):
    """The next request might cost more than is left; the message names the key."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens of prompts and of answers."""

    input: float = 0.0
    output: float = 0.0

    def money(self, usage: Usage) -> float:
        """Return what tokens cost."""
        return (usage.input * self.input + usage.output * self.output) / MILLION


class Bill:
    """What a reserved request turned out to use."""

    usage = Usage()


class Budget:
    """Tokens and money of one command.

    A request is made when its prompt and its longest possible answer fit into what is left; what others that are on
    their way might still use counts as used until they are answered.
    """

    def __init__(
        self,
        tokens: int = 0,
        money: float = 0.0,
        prices: Prices | None = None,
        *,
        where: str = "data.modalities.writer",
    ) -> None:
        self.tokens, self.money, self.prices, self.where = tokens, money, prices or Prices(), where
        self.spent, self.reserved, self.open = Usage(), Usage(), 0
        self.changed = asyncio.Condition()

    @asynccontextmanager
    async def reserve(self, most: Usage) -> AsyncIterator[Bill]:
        """Wait until a request that uses at most so much may be made, and settle its bill afterwards.

        Raises:
            BudgetSpent: no request is on its way, and this one does not fit.
        """
        limited = bool(self.tokens or self.money)
        if limited:
            async with self.changed:
                while fault := self._fault(self.spent + self.reserved + most):
                    if not self.open:
                        raise BudgetSpent(fault)
                    await self.changed.wait()
                self.reserved, self.open = self.reserved + most, self.open + 1
        bill = Bill()
        try:
            yield bill
        finally:
            self.spent += bill.usage
            if limited:
                self.reserved, self.open = self.reserved - most, self.open - 1
                async with self.changed:
                    self.changed.notify_all()

    def _fault(self, usage: Usage) -> str:
        if self.tokens and usage.total > self.tokens:
            return f"{self.where}.budget_tokens: {self.spent.total:,} of {self.tokens:,} tokens are used"
        if self.money and (cost := self.prices.money(usage)) > self.money:
            spent = self.prices.money(self.spent)
            return f"{self.where}.budget_money: {spent:.4g} of {self.money:g} is spent, {cost:.4g} were needed"
        return ""
