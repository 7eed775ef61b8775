"""HealthMoE's model: see rec.systems.healthmoe.

Letters: B users, I items with padding as item 0, N (user, item) pairs, P positives, C negatives of a user, M modalities
or width of an encoder, W width of a projection, D widths of all projections of a side, U users of the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from rec.moe.experts import FeedForward
from rec.moe.layer import Mixed, is_spread
from rec.moe.pairs import LinearPairScores, PairScores, Right, pass_bytes, splits
from rec.nn.dropout import Dropout
from rec.nn.encoders import BertEncoder, ImageEncoder, TokenForm, in_chunks
from rec.nn.input_tables import InputTables
from rec.nn.negatives import unseen
from rec.nn.pairs import PairsBatch, chosen_positives, counts
from rec.seeds import derive
from rec.systems.healthmoe.config import HealthMoEConfig
from rec.transfer import sent

ITEMS_AT_ONCE = 256
"""Items whose texts and pictures are encoded together where all are."""
ENCODED = {"text": "tokens", "image": "pixels"}
"""What a modality's own encoder reads of it, as its table is called."""
SAMPLE = 64
"""Users and items by which projections are centred."""
USERS_OF_RANKS = 256
"""Users for whom a pass over items is sized where experts are spread: the same on all ranks, whatever their users."""


@dataclass(frozen=True, slots=True)
class HealthMoEScores:
    """What one pass over a batch in training gives."""

    positive_P: Tensor
    row_P: Tensor
    """The user of each positive."""
    negative_BC: Tensor
    """-inf where a candidate is relevant or known."""
    mixed: Mixed | None


class HealthMoEModel(nn.Module):
    """Encoders, a projection and a missing vector per modality, the mixture, the head."""

    frozen: Tensor | None
    cached: Tensor | None

    def __init__(
        self, config: HealthMoEConfig, tables: Mapping[str, np.ndarray], seed: int, tokens: TokenForm | None
    ) -> None:
        super().__init__()
        self.config = config
        # Memory-mapped and shared: items' texts and pictures are inputs, no part of the weights.
        named = {name: torch.from_numpy(np.asarray(tables[name])) for name in tables if name.startswith("item_")}
        self.known_I = named["item_count"] > 0
        warm_place_I = self.known_I.cumsum(0) * self.known_I  # from 1 among warm items, 0 for cold ones
        more = {"known": self.known_I, "warm": self.known_I.nonzero()[:, 0], "warm_place": warm_place_I}
        self.tables = InputTables(named | more)
        self.num_items = len(self.known_I) - 1
        self.frozen = self.cached = None
        self.prepared: ItemScoring | None = None
        self.user_columns = config.width * len(config.of_users)
        user_width = {"attributes": tables["user_attributes"].shape[1], "history": 0}
        item_width = {"attributes": tables["item_attributes"].shape[1], "id": config.width}
        if config.encoders == "trained":
            if "text" in config.of_users + config.of_items:
                assert tokens is not None, "the data set holds tokens of texts"
                self.text = BertEncoder(config.text, tokens.vocabulary, tokens.length, tokens.pad)
                user_width["text"] = item_width["text"] = self.text.width
            if "image" in config.of_items:
                self.image = ImageEncoder(config.image, tables["item_pixels"].shape[1])
                item_width["image"] = self.image.width
        else:
            user_width["text"] = tables["user_text"].shape[1] if "text" in config.user else 0
            item_width |= {n: tables[f"item_{n}"].shape[1] for n in ("text", "image") if n in config.of_items}
        user_width["history"] = len(config.of_items) * config.width
        if "id" in config.of_items:
            self.id = nn.Embedding(self.num_items + 1, config.width)
            nn.init.normal_(self.id.weight, std=0.02)
        names = [(f"user_{n}", user_width[n]) for n in config.of_users]
        names += [(f"item_{n}", item_width[n]) for n in config.of_items]
        self.project = nn.ModuleDict({n: nn.Linear(width, config.width) for n, width in names})
        self.norm = nn.ModuleDict({n: nn.LayerNorm(config.width) for n, _ in names})
        slots = [n for n, _ in names] + ([f"item_{n}" for n in config.item] if config.head == "classification" else [])
        self.missing = nn.ParameterDict({n: nn.Parameter(torch.randn(config.width)) for n in slots})
        self.product = config.product and config.head == "ranking"
        fused = config.width * (len(slots) + self.product)
        self.mixture: nn.Module
        if config.mixture.experts:
            seen = self.user_columns if config.gate == "user" else 0
            self.mixture = config.mixture.layer(fused, config.hidden, derive(seed, "experts"), config.out, seen)
        elif config.hidden:
            self.mixture = FeedForward(fused, config.hidden * config.mixture.active, out=config.out, seed=seed)
        else:
            self.mixture = nn.Linear(fused, config.out)
        self.dropout = Dropout(config.dropout)
        if config.head == "ranking":
            linear = not config.hidden
            self.head: nn.Module = nn.Linear(config.out, 1) if linear else Head(config.out)
        else:
            self.head = nn.Linear(config.out, self.num_items + 1)
        self._centre(tables)

    @torch.no_grad()
    def _centre(self, tables: Mapping[str, np.ndarray]) -> None:
        """Let projections start centred and at one scale on the data, as a sample of it shows.

        Fresh encoders give nearly the same vector for everything; what tells rows apart would be lost beside that.
        Source: Salimans and Kingma 2016 (data-dependent initialisation), with one scale per projection.
        """
        self.eval()
        index_X = torch.from_numpy(np.flatnonzero(tables["item_count"])[:SAMPLE])
        of_items = [name for name in self.config.of_items if name != "id"]
        samples = {f"item_{n}": self._encoded(n, self.tables[self._table(n)][index_X]) for n in of_items}
        kind = "tokens" if self.config.encoders == "trained" else "text"
        for name, table in (("attributes", "user_attributes"), ("text", f"user_{kind}")):
            if name in self.config.of_users:
                value_XM = torch.from_numpy(np.array(tables[table][:SAMPLE]))
                samples[f"user_{name}"] = self.text(value_XM) if table == "user_tokens" else value_XM
        for name, value_XM in samples.items():
            linear, mean_M = self._linear(name), value_XM.float().mean(0)
            scale = (value_XM.float() - mean_M).square().mean().sqrt()
            if scale > 0:
                linear.weight.div_(scale)
                linear.bias.copy_(-linear.weight @ mean_M)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what was computed of all items is computed anew."""
        self.cached = self.prepared = None
        return super().train(mode)

    def forward(self, batch: PairsBatch) -> HealthMoEScores:
        """Return scores of relevant items and of others for every user of the batch."""
        config, device = self.config, batch.user_B.device
        row_P, item_P, history = chosen_positives(batch, config.positives, "history" in config.user)
        users = torch.arange(len(batch), device=device)
        # Only items with a training pair: others are not to be learned as what nobody wants.
        warm_W, warm_place_I = (self.tables.whole(name, device) for name in ("warm", "warm_place"))
        hidden_row = torch.cat([batch.target_row_P, batch.history_row_M])
        hidden_place = warm_place_I[torch.cat([batch.target_P, batch.history_M])]
        hidden_M = hidden_place.nonzero()[:, 0]
        hidden_row, hidden_place = hidden_row[hidden_M], hidden_place[hidden_M]
        everything = config.negatives == 0 or config.head == "classification"
        if everything:
            negative_BC = warm_W.expand(len(batch), -1)
        else:
            draw_BC = unseen(users, hidden_row, hidden_place, len(warm_W), config.negatives)
            negative_BC = warm_W[draw_BC.clamp(min=1) - 1]
        wanted = torch.cat([item_P, history[1], negative_BC[:1].flatten() if everything else negative_BC.flatten()])
        index_X, place = wanted.unique(return_inverse=True)
        item_XD = self.item_side(index_X)
        place_P, place_M, place_C = place.split(
            [len(item_P), len(history[1]), len(place) - len(item_P) - len(history[1])]
        )
        user_BD = self.user_side(batch, (history[0], item_XD[place_M]))
        if config.head == "classification":
            score_BI, mixed = self.classify(user_BD)
            positive_P, negative_BC = score_BI[row_P, item_P], score_BI[:, warm_W]
        else:
            place_BC = place_C.expand(len(batch), -1) if everything else place_C.view(len(batch), -1)
            owner_N = torch.cat([row_P, users.repeat_interleave(place_BC.shape[1])])
            x_ND = torch.cat([user_BD[owner_N], item_XD[torch.cat([place_P, place_BC.flatten()])]], 1)
            score_N, mixed = self.score(x_ND)
            positive_P, negative_BC = score_N[: len(row_P)], score_N[len(row_P) :].view(len(batch), -1)
            if not everything:
                negative_BC = negative_BC.masked_fill(draw_BC == 0, -torch.inf)
        if everything:
            negative_BC = negative_BC.index_put(
                (hidden_row, hidden_place - 1), torch.full_like(negative_BC[0, 0], -torch.inf)
            )
        return HealthMoEScores(positive_P, row_P, negative_BC, mixed)

    def score(self, x_ND: Tensor) -> tuple[Tensor, Mixed | None]:
        """Return the score of each row of joined projections, float32 (N,)."""
        y_NO, mixed = self.mix(x_ND)
        score_N: Tensor = self.head(self.dropout(y_NO))[:, 0].float()
        return score_N, mixed

    def mix(self, x_ND: Tensor) -> tuple[Tensor, Mixed | None]:
        """Return what the mixture, or the plain network, makes of joined projections."""
        if self.product:
            x_NMW = x_ND.view(len(x_ND), -1, self.config.width)
            users = len(self.config.of_users)
            x_ND = torch.cat([x_ND, x_NMW[:, :users].mean(1) * x_NMW[:, users:].mean(1)], 1)
        out = self.mixture(x_ND)
        return (out.y_ND, out) if isinstance(out, Mixed) else (out, None)

    def classify(self, user_BD: Tensor) -> tuple[Tensor, Mixed | None]:
        """Return the logits of all items from the user's side, -inf for items without a training pair, (B, I)."""
        slots = torch.cat([self.missing[f"item_{n}"] for n in self.config.item])
        x_BD = torch.cat([user_BD, slots.to(user_BD.dtype).expand(len(user_BD), -1)], 1)
        y_BO, mixed = self.mix(x_BD)
        score_BI = self.head(self.dropout(y_BO)).float()
        return score_BI.masked_fill(~self.tables.whole("known", score_BI.device), -torch.inf), mixed

    def item_side(
        self,
        index_X: Tensor,
        left_out: Collection[str] = (),
        pixels: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """Return the joined projections of items, (X, D).

        Args:
            index_X: The items.
            left_out: Modalities to take for missing, such as "item image".
            pixels: In the place of the pictures on file: one per item of the table, (I, S, S, 3).
            source: The item whose picture each item of the table has, (I,); None its own.
        """
        device = index_X.device
        of_items = [name for name in self.config.of_items if name != "id"]
        parts = [torch.zeros(len(index_X), 0, dtype=next(self.parameters()).dtype, device=device)]
        image_X = index_X if source is None else sent(source, device)[index_X]
        read = {self._table(n): image_X if n == "image" else index_X for n in of_items if f"item {n}" not in left_out}
        read |= {"item_present": index_X} | ({"known": index_X} if "id" in self.config.of_items else {})
        found = self.tables.rows(read, {} if pixels is None else {self._table("image"): pixels})
        for name in self.config.of_items:
            if name == "id":
                value_XM, present_X = self.id(index_X), found["known"]
            else:
                present_X = found["item_present"][:, ("text", "image", "attributes").index(name)]
                if f"item {name}" in left_out:
                    value_XM = torch.zeros(len(index_X), self._linear(f"item_{name}").in_features, device=device)
                else:
                    value_XM = self._encoded(name, found[self._table(name)])
            parts.append(self._projected(f"item_{name}", value_XM, present_X, f"item {name}" in left_out))
        return torch.cat(parts, 1)

    def _table(self, name: str) -> str:
        """Return the table that holds what is known of one modality of items."""
        trained = self.config.encoders == "trained"
        return f"item_{ENCODED[name] if trained and name in ENCODED else name}"

    def _encoded(self, name: str, row_XR: Tensor) -> Tensor:
        """Return rows of one modality's table as they are projected."""
        if self.config.encoders == "frozen" or name == "attributes":
            return row_XR
        return in_chunks(self.text if name == "text" else self.image, row_XR, ITEMS_AT_ONCE)

    def user_side(self, batch: PairsBatch, history: tuple[Tensor, Tensor], left_out: Collection[str] = ()) -> Tensor:
        """Return the joined projections of users, (B, D); `history` is rows and the items' joined projections."""
        parts = []
        for name in self.config.of_users:
            if name == "history":
                total_BD = batch.attributes_BA.new_zeros(len(batch), history[1].shape[1])
                total_BD = total_BD.to(history[1].dtype).index_add(0, *history)
                count_B = counts(history[0], len(batch))
                value_BM, present_B = total_BD / count_B.clamp(min=1)[:, None], count_B > 0
            elif name == "attributes":
                value_BM, present_B = batch.attributes_BA, batch.present_BM[:, 1]
            else:
                value_BM = self.text(batch.text_BX) if self.config.encoders == "trained" else batch.text_BX
                present_B = batch.present_BM[:, 0]
            parts.append(self._projected(f"user_{name}", value_BM, present_B, f"user {name}" in left_out))
        return torch.cat(parts, 1)

    def _projected(self, name: str, value_XM: Tensor, present_X: Tensor, left_out: bool) -> Tensor:
        """Return LN(W x + c), or the learned missing vector where nothing is there, (X, W)."""
        if self.training and self.config.modality_dropout:
            kept = torch.rand(len(value_XM), device=value_XM.device) >= self.config.modality_dropout
            present_X = present_X & kept
        linear, missing_W = self._linear(name), self.missing[name]
        x_XW = self.norm[name](linear(value_XM.to(linear.weight.dtype)))
        there = present_X[:, None] & (not left_out)
        return torch.where(there, x_XW, missing_W.to(x_XW.dtype))

    def _linear(self, name: str) -> nn.Linear:
        linear = self.project[name]
        assert isinstance(linear, nn.Linear)
        return linear

    def catalogue(
        self, left_out: Collection[str] = (), pixels: Tensor | None = None, source: Tensor | None = None
    ) -> Tensor:
        """Return the joined projections of all items, (I, D); where nothing is changed, kept until training goes on."""
        plain = not left_out and pixels is None and source is None
        if plain and self.frozen is not None:
            return self.frozen
        if plain and self.cached is not None and not self.training:
            return self.cached
        device = next(self.parameters()).device
        everything = torch.arange(self.num_items + 1, device=device).split(ITEMS_AT_ONCE)
        item_ID = torch.cat([self.item_side(part, left_out, pixels, source) for part in everything])
        if plain and not self.training:
            self.cached = item_ID
        return item_ID

    def states(self, batch: PairsBatch, item_ID: Tensor, left_out: Collection[str] = ()) -> Tensor:
        """Return users' joined projections in evaluation, where all of their history counts."""
        return self.user_side(batch, (batch.history_row_M, item_ID[batch.history_M]), left_out)

    def all_scores(self, user_BD: Tensor, item_ID: Tensor, some: slice = slice(None), block: int = 0) -> Tensor:
        """Return every user's score of these neighbouring items, (B, I); padding's means nothing.

        What is made of the items last asked for is kept, in evaluation, until training goes on. `block` is how many
        items are scored at once where a mixture cannot be split by side; 0: what `pass_bytes` hold.
        """
        if self.training or self.prepared is None or self.prepared.item_ID is not item_ID:
            self.prepared = None  # before the next, so that there is room for it
            prepared = self.item_scoring(item_ID)
            self.prepared = None if self.training else prepared
        else:
            prepared = self.prepared
        return self.scores_of(user_BD, prepared, some, block)

    def item_scoring(self, item_ID: Tensor) -> ItemScoring:
        """Return items ready to be scored for any users, from their joined projections and the weights of now."""
        widths = self.user_columns, item_ID.shape[1], self.config.width if self.product else 0
        scores: PairScores | LinearPairScores | None = None
        if self.config.head == "classification" or self.training:
            pass
        elif isinstance(self.mixture, nn.Linear) and isinstance(self.head, nn.Linear):
            scores = LinearPairScores(self.mixture, widths, self.head)
        elif isinstance(self.head, Head) and splits(self.mixture, self.user_columns):
            scores = PairScores(self.mixture, widths, self.head.up, self.head.down)
        right = None if scores is None else scores.right(item_ID, self._inner(item_ID.to(scores.dtype)))
        return ItemScoring(item_ID, scores, right)

    def scores_of(self, user_BD: Tensor, prepared: ItemScoring, some: slice = slice(None), block: int = 0) -> Tensor:
        """Return every user's score of these neighbouring items, (B, I)."""
        if self.config.head == "classification":
            return self.classify(user_BD)[0][:, some]
        if prepared.scores is not None and prepared.right is not None:
            inner_BW = self._inner(user_BD.to(prepared.scores.dtype))
            return prepared.scores.scores(user_BD, inner_BW, prepared.right, some)
        parts, item_ID = [], prepared.item_ID
        block = block or self._items_per_pass(len(user_BD), item_ID)
        for part_ID in item_ID[some].split(block):
            shape = (len(user_BD), len(part_ID), -1)
            x_ND = torch.cat([user_BD[:, None].expand(shape), part_ID[None].expand(shape)], 2).flatten(0, 1)
            parts.append(self.score(x_ND)[0].view(shape[:2]))
        return torch.cat(parts, 1)

    def _items_per_pass(self, users: int, item_ID: Tensor) -> int:
        """Return how many items a pass of users' pairs through the mixture may have, by the memory that it takes."""
        config, mixture = self.config, self.config.mixture
        joined = self.user_columns + item_ID.shape[1]
        fused = joined + config.width * self.product
        choices, networks = mixture.of_row * mixture.fine + mixture.shared, mixture.active
        passed = choices * (fused + config.out) + 2 * networks * config.hidden
        users = USERS_OF_RANKS if is_spread(self) else users
        pair_bytes = (joined + fused + passed) * item_ID.element_size()
        return max(1, pass_bytes(item_ID) // (max(1, users) * pair_bytes))

    def _inner(self, x_ND: Tensor) -> Tensor:
        """Return a side's factor of the product of both sides: the mean of its projections, no columns without one."""
        if not self.product:
            return x_ND[:, :0]
        return x_ND.view(len(x_ND), -1, self.config.width).mean(1)


@dataclass(frozen=True, slots=True)
class ItemScoring:
    """Items with what scores make of them alone; `scores` is None where a pair's row cannot be split by side."""

    item_ID: Tensor
    scores: PairScores | LinearPairScores | None
    right: Right | None


class Head(nn.Module):
    """A score from what experts give: one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, y_NO: Tensor) -> Tensor:
        """Return (N, 1)."""
        out: Tensor = self.down(nn.functional.gelu(self.up(y_NO)))
        return out
