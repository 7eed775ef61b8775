"""What a language model is asked about an item, and how its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema

from rec.data.modalities.config import ASPECTS, CONTEXT, ExampleConfig, PromptConfig
from rec.data.modalities.faithfulness import Faithfulness
from rec.data.modalities.items import Item
from rec.data.modalities.language_model import CUT, Answer, ChatMessage, Conversation
from rec.json_text import json_text

NOTHING = "nothing is known"
"""Stands where no passage was found: a gap would invite to fill it."""
FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
SHOWN_WORDS = 12
"""Unsupported words that are named when a model is asked again."""


class Unusable(Exception):
    """An answer is not of the form that was asked for; the message says why, in words that its writer understands."""


class Prompter:
    """Asks for some modalities of items, and reads the answers."""

    def __init__(self, config: PromptConfig, names: Sequence[str], fields: Sequence[str]) -> None:
        self.names, self.config = tuple(names), config
        about = [f"{name} ({config.about[name]})" if name in config.about else name for name in names]
        shown = [self._example(example, fields) for example in config.examples if set(names) <= set(example.answer)]
        system = ChatMessage("system", config.system.format_map({ASPECTS: ", ".join(about)}))
        self.start: Conversation = (system, *(message for pair in shown for message in pair))
        self.schema: Mapping[str, Any] = {
            "type": "object",
            "properties": {name: {"type": "string", "pattern": r"\S", "maxLength": config.longest} for name in names},
            "required": list(names),
            "additionalProperties": False,
        }
        self._checked = jsonschema.Draft202012Validator(self.schema)

    def _example(self, example: ExampleConfig, fields: Sequence[str]) -> tuple[ChatMessage, ChatMessage]:
        facts = dict.fromkeys(fields, "") | example.fields
        asked = self.config.user.format_map(facts | {CONTEXT: example.context or NOTHING})
        return ChatMessage("user", asked), ChatMessage("assistant", self._answer(example.answer))

    def _answer(self, texts: Mapping[str, str]) -> str:
        return json_text({name: texts[name] for name in self.names})

    def first(self, item: Item) -> Conversation:
        """Return the first question about an item."""
        context = "\n".join(f"[{number}] {text}" for number, text in enumerate(item.passages, 1)) or NOTHING
        return (*self.start, ChatMessage("user", self.config.user.format_map({**item.facts, CONTEXT: context})))

    def repair(self, conversation: Conversation, answer: Answer, fault: str) -> Conversation:
        """Return the question after an answer that cannot be used."""
        again = f"That answer cannot be used: {fault}. Return nothing but JSON with keys {', '.join(self.names)}."
        return (*conversation, ChatMessage("assistant", answer.text), ChatMessage("user", again))

    def reflect(
        self, conversation: Conversation, texts: Mapping[str, str], low: Mapping[str, Faithfulness]
    ) -> Conversation:
        """Return the question after texts of which something is supported by nothing."""
        named = [f"{name}: {', '.join(found.unsupported[:SHOWN_WORDS]) or 'most of it'}" for name, found in low.items()]
        again = (
            "The context does not support these words:\n" + "\n".join(named) + "\nWrite the same JSON again without "
            "what is not supported; where the context says nothing, stay generic."
        )
        return (*conversation, ChatMessage("assistant", self._answer(texts)), ChatMessage("user", again))

    def read(self, answer: Answer) -> dict[str, str]:
        """Return the texts of an answer by modality.

        Raises:
            Unusable: it was cut, is no JSON, or not of the schema.
        """
        if answer.finish == CUT:
            raise Unusable("it was longer than allowed and was cut; write shorter sentences")
        fenced = FENCE.fullmatch(answer.text)
        try:
            told = json.loads(fenced[1] if fenced else answer.text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"it is not JSON ({error})") from error
        if not self._plainly_fits(told):
            for found in self._checked.iter_errors(told):
                where = ".".join(map(str, found.absolute_path))
                raise Unusable(f"{where or 'the answer'}: {found.message[:200]}")
        return {name: " ".join(told[name].split()) for name in self.names}

    def _plainly_fits(self, told: Any) -> bool:
        """Return whether an answer clearly is of the schema, which takes a tenth of the time of validating it."""
        return (
            isinstance(told, dict)
            and told.keys() == set(self.names)
            and all(
                isinstance(text, str) and text.strip() and len(text) <= self.config.longest for text in told.values()
            )
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
