"""The writer of GaVaMoE: a causal language model with gated experts that is told of a pair by a prompt.

Letters: B pairs, P tokens of a prompt, A tokens of an answer, T = P + A, R rows in the model while it writes, N tokens
of answers, K tokens that are no padding, W words of the vocabulary, D width, F width of a user's and an item's vector,
C clusters, L tokens that all prompts begin with, G gates of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rec.moe.layer import Mixed
from rec.nn.language.causal import causal_model
from rec.nn.language.config import LanguageConfig
from rec.nn.language.gated import GatedConfig, balance_terms, gate_layers
from rec.nn.language.tokens import LanguageTokens
from rec.systems.gavamoe.prompt import Prompt
from rec.systems.review_writer import nll_of_texts
from rec.terms import Term

LEAST_COMMON = 8
"""Tokens of a beginning that are worth to be read apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What is told of some pairs beside words."""

    user_BF: Tensor
    item_BF: Tensor
    cluster_B: Tensor
    """int64, the gate of each pair."""
    share_BC: Tensor | None = None
    """How far each belongs to each cluster, where gates are soft."""
    rating_B: Tensor | None = None
    """Predicted, where the mood of the prompt follows from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOutput:
    """What the writer makes of a batch; only tokens of answers are scored."""

    score_NW: Tensor
    target_N: Tensor
    mixed: tuple[Mixed, ...]
    """What each gated layer has decided, without its outputs."""
    cluster_N: Tensor
    """The gate of each token that has reached experts, (K,)."""


@dataclass(slots=True)
class WriterState:
    """What the model keeps of the rows that it has read."""

    cache: Any
    """Keys and values, of transformers."""
    kept_RT: Tensor
    """Which positions of the cache are no padding."""
    hint_R: Tensor
    """The gate of each row, or its shares of gates."""

    def reorder(self, row_R: Tensor) -> None:
        """Hold these rows in this order."""
        self.cache.batch_select_indices(row_R)
        self.kept_RT, self.hint_R = self.kept_RT[row_R], self.hint_R[row_R]


class PairWriter(nn.Module):
    """Scores and writes what a user would say of an item."""

    def __init__(
        self,
        language: LanguageConfig,
        experts: GatedConfig,
        *,
        clusters: int,
        features: int,
        tokens: LanguageTokens,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = experts
        self.user_token, self.item_token, self.vocabulary = tokens.user, tokens.item, tokens.vocabulary
        self.language = causal_model(language, tokens.vocabulary, seed)
        width, dtype = self.language.config.hidden_size, self.language.get_input_embeddings().weight.dtype
        self.user, self.item = (nn.Linear(features, width).to(dtype) for _ in range(2))
        layers, self.context = gate_layers(self.language, experts, clusters, seed)
        self.layers: Sequence[Any] = tuple(layers)  # parts of the language model, not of this module once more

    def forward(
        self,
        prompt: Prompt,
        user_BF: Tensor,
        item_BF: Tensor,
        cluster_B: Tensor,
        responsibility_BC: Tensor | None = None,
        rating_B: Tensor | None = None,
    ) -> WriterOutput:
        """Return the scores of every token of the answers given those before it."""
        pairs = Pairs(
            user_BF=user_BF, item_BF=item_BF, cluster_B=cluster_B, share_BC=responsibility_BC, rating_B=rating_B
        )
        token_BP, answer_BA = prompt.of(rating_B), prompt.answer_BA
        token_BT = torch.cat([token_BP, prompt.read_BA], 1)
        kept_BT, hint_B = token_BT >= 0, self._hints(pairs)
        state_BTD = self._states(token_BT, kept_BT, kept_BT, pairs, hint_B, None)
        # The last token of a prompt scores the first of the answer, which scores the next.
        scored_BA = answer_BA >= 0
        state_ND = state_BTD[:, token_BP.shape[1] - 1 :][scored_BA]
        return WriterOutput(
            score_NW=self._scores(state_ND),
            target_N=answer_BA[scored_BA],
            mixed=tuple(self.context.mixed[number] for number in range(len(self.layers))),
            cluster_N=self._gates(cluster_B)[:, None].expand_as(kept_BT)[kept_BT],
        )

    def terms(self, written: WriterOutput) -> dict[str, Term]:
        """Return the negative log likelihood of answers, over their tokens, and the balance of every layer's gates."""
        nll = nn.functional.cross_entropy(written.score_NW.float(), written.target_N, reduction="sum")
        terms = {"text_nll": Term(nll, len(written.target_N))}
        return terms | balance_terms(self.layers, written.mixed, written.cluster_N, self.config.balance_weight)

    def nll(self, prompt: Prompt, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood of each answer in nats, float64, and its tokens, int64, (B,) each."""
        found: WriterOutput = self(
            prompt, pairs.user_BF, pairs.item_BF, pairs.cluster_B, pairs.share_BC, pairs.rating_B
        )
        return nll_of_texts(found.score_NW, found.target_N, (prompt.answer_BA >= 0).sum(1))

    def counts(self, prompt: Prompt) -> dict[str, float] | None:
        """Return the count of each of `terms`; None with a balance, which wants to know where all of a step goes."""
        return None if self.config.balance_weight else {"text_nll": float((prompt.answer_BA >= 0).sum())}

    def start(self, batch: tuple[Prompt, Pairs]) -> tuple[Tensor, WriterState]:
        """Read the prompts; return the scores of each text's first token, (B, W), and what is kept.

        What all of them begin with is read once for each gate, and its keys and values are copied.
        """
        from transformers import DynamicCache

        prompt, pairs = batch
        token_BP = prompt.of(pairs.rating_B)
        state = WriterState(cache=DynamicCache(), kept_RT=token_BP >= 0, hint_R=self._hints(pairs))
        if len(prompt.common_L) >= LEAST_COMMON and state.hint_R.dim() == 1:
            token_BP = self._begin(token_BP, prompt.common_L, state)
        state_BPD = self._states(token_BP, token_BP >= 0, state.kept_RT, pairs, state.hint_R, state.cache)
        return self._scores(state_BPD[:, -1]), state

    def gates(self, hint_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the different gates of pairs, (G,), and which of them each pair has, (B,)."""
        gate_G, place_B = (hint_B if self.layers else torch.zeros_like(hint_B)).unique(return_inverse=True)
        return gate_G, place_B

    def _begin(self, token_BP: Tensor, common_L: Tensor, state: WriterState) -> Tensor:
        """Read the common beginning of prompts into the cache; return what is left of them, as long as the longest."""
        gate_G, place_B = self.gates(state.hint_R)
        token_GL = common_L.expand(len(gate_G), -1)
        read_GL = torch.ones_like(token_GL, dtype=torch.bool)
        self._states(token_GL, read_GL, read_GL, None, gate_G, state.cache)
        state.cache.batch_select_indices(place_B)
        length = len(common_L)
        left_BP = token_BP.masked_fill((token_BP >= 0).cumsum(1) <= length, -1)[:, length:]
        state.kept_RT = torch.cat([read_GL[place_B], left_BP >= 0], 1)
        return left_BP

    def step(self, token_R: Tensor, state: WriterState) -> tuple[Tensor, WriterState]:
        """Read one token of each row; return the scores of the next one, (R, W), and what is kept."""
        read_R1 = torch.ones_like(token_R, dtype=torch.bool)[:, None]
        state.kept_RT = torch.cat([state.kept_RT, read_R1], 1)
        state_R1D = self._states(token_R[:, None], read_R1, state.kept_RT, None, state.hint_R, state.cache)
        return self._scores(state_R1D[:, 0]), state

    def _gates(self, cluster_B: Tensor) -> Tensor:
        return torch.zeros_like(cluster_B) if self.config.gates == "one" else cluster_B

    def _hints(self, pairs: Pairs) -> Tensor:
        """Return what gates are told of each pair."""
        if self.config.soft_gate and self.config.gates == "cluster":
            assert pairs.share_BC is not None, "soft gates need the shares of clusters"
            return pairs.share_BC
        return self._gates(pairs.cluster_B)

    def _states(
        self, token_BT: Tensor, read_BT: Tensor, kept_BT: Tensor, pairs: Pairs | None, hint_B: Tensor, cache: Any
    ) -> Tensor:
        """Return the last states of tokens, (B, T, D); `read_BT` are those of them that are no padding, `kept_BT` all
        that are read by now."""
        row_K = read_BT.nonzero()[:, 0]
        # Rows of a text that is being written move; only a pass over whole texts says whose each is.
        self.context.start(read_BT, hint_B[row_K], row_K if cache is None else row_K[:0])
        place_BT = (kept_BT.cumsum(1) - 1).clamp(min=0)[:, -token_BT.shape[1] :]
        found = self.language.get_decoder()(
            inputs_embeds=self._embedded(token_BT, pairs),
            attention_mask=kept_BT.long(),
            position_ids=place_BT,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        state_BTD: Tensor = found.last_hidden_state
        return state_BTD

    def _embedded(self, token_BT: Tensor, pairs: Pairs | None) -> Tensor:
        """Return the vectors of tokens, with the pair's own where user and item stand."""
        vector_BTD: Tensor = self.language.get_input_embeddings()(token_BT.clamp(min=0, max=self.vocabulary - 1))
        if pairs is None:
            return vector_BTD
        for token, linear, given_BF in (
            (self.user_token, self.user, pairs.user_BF),
            (self.item_token, self.item, pairs.item_BF),
        ):
            own_B1D = linear(given_BF.to(linear.weight.dtype))[:, None].to(vector_BTD.dtype)
            vector_BTD = torch.where((token_BT == token)[..., None], own_B1D, vector_BTD)
        return vector_BTD

    def _scores(self, state_ND: Tensor) -> Tensor:
        score_NW: Tensor = self.language.get_output_embeddings()(state_ND)
        return score_NW[:, : self.vocabulary]
