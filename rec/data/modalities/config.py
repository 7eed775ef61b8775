"""The keys of `[data.modalities]`: what texts of items are written from, by whom, and for which items."""

from __future__ import annotations

import difflib
import re
import string
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from rec.data.modalities.knowledge_config import FaithfulnessConfig, KnowledgeConfig
from rec.data.modalities.requests_config import BUDGET_KEYS, HTTP_KEYS, HTTP_STARTS, RequestsConfig
from rec.strict import Needs, Strict, alike

ITEM_FIELDS = (
    "title", "year", "rated", "released", "genres", "directors", "writers", "actors", "plot", "poster_url", "runtime",
    "country",
)  # fmt: skip
"""What is told of every film, "" where it is unknown."""
CONTEXT, ASPECTS = "context", "modalities"
"""What a prompt may name beside fields: the passages that were found, and the modalities with what each is about."""
SYSTEM_PROMPT = (
    "You describe one film aspect by aspect. Use only the context; if the context says nothing about an aspect, infer "
    "from genre and era and keep it generic. Return JSON with keys {modalities}; each value one sentence of at most 14 "
    "words, no names of other films."
)
USER_PROMPT = (
    "Title: {title} ({year})\nGenres: {genres}\nDirector: {directors}\nWriters: {writers}\nActors: {actors}\n"
    "Plot: {plot}\nContext: {context}"
)
MODELS = ("chat", "local", "vllm")
"""Kinds of writers that ask a language model."""
NAME = re.compile(r"[A-Za-z_]\w*( \w+)*")


class ExampleConfig(Strict):
    """An item and the answer that it should get, shown to the model before it is asked."""

    fields: dict[str, str] = {}
    """Fields of the item; those that are not told are ""."""
    context: str = ""
    """The passages that the example has."""
    answer: dict[str, str]
    """A text for each modality that the config writes; others are left out."""


TOY_STORY = {"title": "Toy Story", "year": "1995", "genres": "Animation, Children's, Comedy"}
JUMANJI = {"title": "Jumanji", "year": "1995", "genres": "Adventure, Children's, Fantasy"}
EXAMPLES = (
    ExampleConfig(
        fields=TOY_STORY,
        context="A cowboy doll is threatened by a new spaceman toy that takes his place in a boy's room.",
        answer={
            "narrative": "Heartfelt toy adventure centered on friendship and growth.",
            "dialogue": "Witty banter between rival toys, full of jokes for all ages.",
            "visual": "Bright computer animation with plastic textures and warm colours.",
            "set": "A suburban child's bedroom and the streets around it.",
            "audio": "Cheerful songs and a playful score about companionship.",
            "pace": "Brisk scenes that move from comedy to a chase.",
            "direction": "Clear storytelling that balances comedy with feeling.",
            "acting": "Lively voices give each toy a character of its own.",
            "poster": "A cowboy doll and a spaceman toy together on a blue background.",
        },
    ),
    ExampleConfig(
        fields=JUMANJI,
        context="Two children free a man who was trapped for decades in a magical board game full of jungle dangers.",
        answer={
            "narrative": "Children survive a magical board game whose dangers become real.",
            "dialogue": "Urgent warnings and comic remarks among startled players.",
            "visual": "Jungle animals and plants burst into an ordinary town.",
            "set": "An old house in a small town overrun by jungle.",
            "audio": "Drums and an adventurous orchestra announce each new danger.",
            "pace": "Quick turns from one peril of the game to the next.",
            "direction": "A family adventure driven by effects and surprise.",
            "acting": "A bewildered man out of time beside resourceful children.",
            "poster": "A jungle game board from which animals and faces emerge.",
        },
    ),
)
"""Two films as MSMRec's prompt shows them; the narrative of the first is the paper's own (table 2)."""


class PromptConfig(Strict):
    """What a language model is told of an item; {fields} stand for what is known of it."""

    system: str = SYSTEM_PROMPT
    """The system's message; {modalities} stands for their names, each with what `about` says of it."""
    user: str = USER_PROMPT
    """The user's message; {context} stands for the passages that were found."""
    about: dict[str, str] = {}
    """What a modality tells, in the prompt beside its name."""
    examples: tuple[ExampleConfig, ...] = EXAMPLES
    """Items with their answers, asked and answered before the item's own question."""
    longest: int = Field(400, ge=10)
    """Characters of a text at most; an answer with a longer one is not taken."""


class WriterConfig(RequestsConfig):
    """Who writes the texts, how often it is asked, and what that may cost.

    `url` takes chat completions, such as "http://localhost:8000/v1/chat/completions".
    """

    NEEDS: ClassVar[Needs] = {
        **alike((*HTTP_KEYS, "format", "stream"), {"kind": ["chat"]}),
        **alike((*BUDGET_KEYS, "output_price"), {"kind": list(MODELS)}),
        **alike(("model", "temperature", "seed", "max_tokens"), {"kind": list(MODELS)}),
        **alike(("batch_size", "actors", "cpus_per_actor", "gpus_per_actor"), {"kind": ["local", "vllm"]}),
    }

    kind: Literal["template", "chat", "local", "vllm"] = "template"
    """"template": from what is known of an item, offline. "chat": any HTTP server of chat completions. "local": a
    causal model of transformers. "vllm": vLLM through Ray Data, where it is installed."""
    model: str = ""
    """What the server calls it; of "local" and "vllm" a name or path."""
    format: Literal["json_schema", "json_object", "none"] = "json_object"
    """What the server is told of the form of answers: their schema, that they are JSON, or nothing."""
    stream: bool = False
    """Takes answers as they are written; a server that answers slowly is not taken for one that is silent."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Of the model; 0 takes the most probable token each time."""
    seed: int = Field(0, ge=0)
    """Of what is drawn at a temperature above 0."""
    max_tokens: int = Field(512, ge=1)
    """Tokens of an answer at most; a longer one is cut, noticed and asked again."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million tokens of answers."""
    batch_size: int = Field(16, ge=1)
    """Items that a model on this cluster writes at the same time."""
    actors: int = Field(1, ge=1)
    """Copies of that model."""
    cpus_per_actor: float = Field(1.0, gt=0)
    """CPUs of each copy."""
    gpus_per_actor: float = Field(0.0, ge=0)
    """GPUs of each copy, or a share of one."""

    @property
    def asks(self) -> bool:
        """Whether a language model is asked."""
        return self.kind in MODELS

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.asks and not self.model:
            raise ValueError(f"model: kind {self.kind!r} needs the name of a model")
        if self.kind == "chat" and not self.url.startswith(HTTP_STARTS):
            raise ValueError(
                f"url: kind 'chat' needs an address that starts with http:// or https://, got {self.url!r}"
            )
        if self.budget_money and not (self.input_price or self.output_price):
            raise ValueError("budget_money: has no effect without input_price or output_price")
        return self


class SelectConfig(Strict):
    """Items whose texts the model writes: those that gain from it; the template writes the others'.

    Where both thresholds are set, an item below either is written.
    """

    share: float = Field(1.0, ge=0, le=1)
    """Of all items at most; those of the fewest records of training come first, then those of the least metadata."""
    most_interactions: int | None = Field(None, ge=0)
    """Items with at most so many records of training; unset, of any number."""
    most_characters: int | None = Field(None, ge=0)
    """Items of whose metadata there are at most so many characters; unset, of any number."""


class KeepingConfig(FaithfulnessConfig):
    """What becomes of texts that say what neither the item's metadata nor its passages do."""

    NEEDS: ClassVar[Needs] = {
        **FaithfulnessConfig.NEEDS,
        **dict.fromkeys(("reflect", "then"), ({"threshold": {"not": [None]}}, {"thresholds": {"not": [{}]}})),
    }

    thresholds: dict[str, float] = {}
    """By modality, in the place of `threshold`; `rec modalities` tells good ones."""
    reflect: bool = False
    """Asks once more about texts that score less than `threshold`, with the words named that nothing supports."""
    then: Literal["keep", "template", "mask"] = "keep"
    """Texts that still score less are kept, written by template, or left out."""

    def least(self, modality: str) -> float | None:
        """Return the score below which a modality's texts are taken for invented, None where none is set."""
        return self.thresholds.get(modality, self.threshold)


class ModalitiesConfig(Strict):
    """How the texts of `data.text.modalities` are written that are no columns of the items."""

    NEEDS: ClassVar[Needs] = {
        "knowledge": ({"writer.kind": list(MODELS)}, {"templates": {"not": [{}]}}),
        "prompt": {"writer.kind": list(MODELS)},
        "select": {"writer.kind": list(MODELS)},
        "faithfulness": {"writer.kind": list(MODELS)},
    }

    fields: tuple[str, ...] = ()
    """Further columns of the items that templates and prompts may name, beside what is told of every film (`title`,
    `year`, `genres`, `directors`, `writers`, `actors`, `plot`, ..., "" where it is unknown)."""
    templates: dict[str, str] = {}
    """By modality, the text that the offline template writes, with {fields}, and with what was found of the item as
    {context}; the nine of films have their own."""
    knowledge: KnowledgeConfig | None = None
    """Files from which passages are found for each item that a model writes of, and for all where a template names
    {context}; unset, there is the metadata alone."""
    prompt: PromptConfig = PromptConfig()
    writer: WriterConfig = WriterConfig()
    select: SelectConfig = SelectConfig()
    faithfulness: KeepingConfig = KeepingConfig()
    batch: int = Field(2048, ge=1)
    """Items that are held at once."""

    @property
    def quotes(self) -> bool:
        """Whether a template takes what was found of an item."""
        return any(CONTEXT in named_in(text, name) for name, text in self.templates.items())

    @field_validator("fields")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not NAME.fullmatch(name) or name in (CONTEXT, ASPECTS):
                raise ValueError(f"{name!r} cannot be named in a prompt")
        return names

    @model_validator(mode="after")
    def _name_fields(self) -> Self:
        prompts = {"prompt.system": (self.prompt.system, {ASPECTS}), "prompt.user": (self.prompt.user, {CONTEXT})}
        quoted = {CONTEXT} if self.knowledge is not None else set()
        templates: dict[str, Any] = {f"templates.{name}": (text, quoted) for name, text in self.templates.items()}
        for key, (text, more) in (prompts | templates).items():
            known = {*ITEM_FIELDS, *self.fields, *more}
            for name in named_in(text, key):
                if name == CONTEXT and key in templates and not quoted:
                    raise ValueError(f"{key}: {{{CONTEXT}}} needs data.modalities.knowledge")
                if name not in known:
                    near = difflib.get_close_matches(name, known, 1)
                    hint = f"; did you mean {{{near[0]}}}?" if near else ""
                    raise ValueError(f"{key}: {{{name}}} is none of {', '.join(sorted(known))}{hint}")
        if self.knowledge is not None and not self.writer.asks and not self.quotes:
            raise ValueError(f"knowledge: has no effect: no model writes, and no template names {{{CONTEXT}}}")
        for number, example in enumerate(self.prompt.examples):
            known = {*ITEM_FIELDS, *self.fields}
            if unknown := [name for name in example.fields if name not in known]:
                told = ", ".join(sorted(known))
                raise ValueError(f"prompt.examples.{number}.fields: {unknown[0]!r} is none of {told}")
        return self


def named_in(text: str, key: str) -> list[str]:
    """Return the fields that a template names.

    Raises:
        ValueError: it cannot be filled, or asks for more than names.
    """
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{key}: cannot be filled ({error}); write {{{{ and }}}} for braces") from error
    found = [(name, form, conversion) for _, name, form, conversion in parts if name is not None]
    for name, form, conversion in found:
        if not NAME.fullmatch(name) or form or conversion:
            asked = f"{name}{'!' * bool(conversion)}{conversion or ''}{':' * bool(form)}{form or ''}"
            raise ValueError(
                f"{key}: found {{{asked}}}, expected the name of a field alone; write {{{{ }}}} for braces"
            )
    return [name for name, _, _ in found]
