"""What asking about items will cost, told before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rec.data.modalities.budget import Prices
from rec.data.modalities.counting import TokenCount
from rec.data.modalities.items import Item
from rec.data.modalities.language_model import TokenUsage
from rec.data.modalities.writers import ModelWriter
from rec.sections import counted

OF_TEXT = 20
"""Tokens of a text of an answer, where neither the cache nor an example tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What first questions about the selected items would cost; what is asked again comes on top."""

    items: int
    selected: int
    questions: int
    """Those whose answer is not there."""
    usage: TokenUsage
    money: float
    exact: bool
    """Whether all items were looked at; else they are scaled from a sample."""

    def told(self, prices: Prices) -> str:
        """Return it in words."""
        about = "" if self.exact else "about "
        money = f", {self.money:,.4g} at {prices.input:g} and {prices.output:g} a million" if prices != Prices() else ""
        return (
            f"modalities: a model writes {self.selected:,} of {counted(self.items, 'item')}: {about}"
            f"{counted(self.questions, 'question')} to ask, about {self.usage.input:,} tokens of prompts and "
            f"{self.usage.output:,} of answers{money}; {about}{self.selected - self.questions:,} are answered"
        )


def estimate(
    sample: Iterable[Sequence[Item]],
    writer: ModelWriter,
    count: TokenCount,
    prices: Prices,
    *,
    items: int,
    selected: int,
) -> Estimate:
    """Return what asking about some selected items costs, scaled to all of them."""
    looked, questions, asked, answered, output = 0, 0, 0, 0, 0
    for batch in sample:
        for item in batch:
            conversation = writer.prompter.first(item)
            looked += 1
            if (answer := writer.answers.get(writer.key(conversation))) is not None:
                answered, output = answered + 1, output + answer.usage.output
            else:
                questions, asked = questions + 1, asked + count.of(conversation)
    scale = selected / looked if looked else 0.0
    each = output / answered if answered else _of_example(writer, count)
    usage = TokenUsage(round(asked * scale), round(questions * scale * each))
    return Estimate(
        items=items,
        selected=selected,
        questions=round(questions * scale),
        usage=usage,
        money=prices.money(usage),
        exact=looked == selected,
    )


def _of_example(writer: ModelWriter, count: TokenCount) -> float:
    """Return the tokens of an answer as the examples have them."""
    answers = [message.content for message in writer.prompter.start if message.role == "assistant"]
    if not answers:
        return float(OF_TEXT * len(writer.prompter.names))
    return sum(map(count.of_text, answers)) / len(answers)
