"""What asking costs, and what it may cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rec.data.modalities.language_model import TokenUsage

MILLION = 1_000_000


class BudgetSpent(Exception):
    """The next request might cost more than is left; the message names the key."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens of prompts and of answers."""

    input: float = 0.0
    output: float = 0.0

    def money(self, usage: TokenUsage) -> float:
        """Return what tokens cost."""
        return (usage.input * self.input + usage.output * self.output) / MILLION


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
        self.spent, self.reserved, self.open = TokenUsage(), TokenUsage(), 0
        self.changed = asyncio.Condition()

    def reserve(self, most: TokenUsage) -> Bill:
        """Return the bill of a request that uses at most so much."""
        return Bill(self, most)

    async def _open(self, most: TokenUsage) -> None:
        """Wait until a request that uses at most so much may be made."""
        async with self.changed:
            while fault := self._fault(self.spent + self.reserved + most):
                if not self.open:
                    raise BudgetSpent(fault)
                await self.changed.wait()
            self.reserved, self.open = self.reserved + most, self.open + 1

    async def _close(self, most: TokenUsage) -> None:
        """Let others have what a request that was made had reserved."""
        self.reserved, self.open = self.reserved - most, self.open - 1
        async with self.changed:
            self.changed.notify_all()

    def _fault(self, usage: TokenUsage) -> str:
        if self.tokens and usage.total > self.tokens:
            return f"{self.where}.budget_tokens: {self.spent.total:,} of {self.tokens:,} tokens are used"
        if self.money and (cost := self.prices.money(usage)) > self.money:
            spent = self.prices.money(self.spent)
            return f"{self.where}.budget_money: {spent:.4g} of {self.money:g} is spent, {cost:.4g} were needed"
        return ""


class Bill:
    """What a request turns out to use: it may be made while this is open, and is paid for when this is closed."""

    def __init__(self, budget: Budget, most: TokenUsage) -> None:
        self.budget, self.most, self.usage = budget, most, TokenUsage()
        self.limited = bool(budget.tokens or budget.money)

    async def __aenter__(self) -> Self:
        """Wait until there is room for the most that it may use.

        Raises:
            BudgetSpent: no request is on its way, and this one does not fit.
        """
        if self.limited:
            await self.budget._open(self.most)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.budget.spent += self.usage
        if self.limited:
            await self.budget._close(self.most)
