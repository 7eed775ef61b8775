"""HealthMoE: foods for patients by text, picture and attributes, joined by a mixture of experts.

Letters: B users, I items with padding as item 0, P relevant pairs, M modalities, S subsets of them, D widths of the
projections of a side, E experts, K items of an answer, T tags.
Source: Xu and Wang 2024 (arXiv 2412.11557), which gives no code and no sizes; the reference design of the
specification's section 2, with every choice a key. Labels of generated and of rule-made sets are synthetic, and no
recommendation is dietary advice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec.batch import Columns
from rec.data.attributes import Attributes
from rec.data.encoders import SPECIAL, Tokens, learn_tokenizer
from rec.data.tags import tag_key
from rec.errors import RequestError
from rec.evaluation.task import Measured
from rec.evaluation.tasks.ranking import Ranking
from rec.json_text import json_text
from rec.moe.config import LOSS_TERMS
from rec.nn.encoders import TokenForm, trained_parts
from rec.nn.input_tables import InputTables
from rec.nn.modality import or_none
from rec.nn.pairs import COLUMNS, PairsBatch, flattened
from rec.nn.shapley import shapley, subsets
from rec.sections import Section
from rec.systems.api import Phase, System, Wanted
from rec.systems.capabilities import Explainer, Ranker, RankingExamples, Reporter, States
from rec.systems.healthmoe import report
from rec.systems.healthmoe.analysis import Analysis
from rec.systems.healthmoe.config import HealthMoEConfig
from rec.systems.healthmoe.model import HealthMoEModel, HealthMoEScores
from rec.terms import Term
from rec.transfer import to_host

ITEMS_AT_ONCE = 1 << 16
"""Items that are compared at once with what users avoid."""


class HealthMoE(
    System[PairsBatch, HealthMoEModel],
    Ranker[PairsBatch, HealthMoEModel],
    Explainer[PairsBatch, HealthMoEModel],
    Reporter[PairsBatch, HealthMoEModel],
):
    """Multimodal recommender of items for described users."""

    Config = HealthMoEConfig
    columns = COLUMNS
    view = "pairs"
    config: HealthMoEConfig
    tasks = (
        Ranking(
            cuts=(1, 5, 10),
            shown=("ndcg@10", "precision@5", "recall@10", "map@5", "auc", "hit@10"),
        ),
    )
    knows_subjects = True
    loss_terms = LOSS_TERMS | {
        "ss": "softmax of a relevant item against drawn ones",
        "bpr": "pairwise ranking of a relevant item above drawn ones",
        "ce": "cross-entropy of the class",
    }

    @classmethod
    def table_names(cls, config: Any) -> tuple[str, ...]:
        """Return the whole-data-set inputs that this config reads."""
        names = ["item_count", "item_present", "user_present", "item_attributes", "user_attributes", "item_class"]
        names += ["item_contains", "user_avoid", "tag_names", "user_attribute_names"]
        trained = config.encoders == "trained"
        for side, chosen in (("user", config.of_users), ("item", config.of_items)):
            if "text" in chosen:
                names.append(f"{side}_tokens" if trained else f"{side}_text")
        if "image" in config.of_items:
            names.append("item_pixels" if trained else "item_image")
        if trained and "text" in config.of_users + config.of_items:
            names.append("tokenizer")
        return tuple(names)

    @classmethod
    def wanted_by(cls, config: Any, table: str) -> Wanted | None:
        """Return which key asks for a table."""
        if table == "tokenizer":
            return Wanted("model.encoders", "model.encoders=frozen")
        side, _, what = table.partition("_")
        return Wanted(f"model.{side}") if what in ("text", "tokens", "image", "pixels") else None

    def model(self) -> HealthMoEModel:
        """Return a freshly initialised model."""
        form = None
        if self.tokens is not None:
            form = TokenForm(self.tokens.tokenizer.get_vocab_size(), self.tokens.max_tokens, self.tokens.pad)
        return HealthMoEModel(self.config, self.static, self.seed, form)

    @cached_property
    def tokens(self) -> Tokens | None:
        """The tokenizer, where texts are encoded here."""
        if "tokenizer" not in self.static:
            return None
        table = next(self.static[n] for n in ("item_tokens", "user_tokens") if n in self.static)
        return Tokens(self._json("tokenizer"), table.shape[1])

    @cached_property
    def tags(self) -> list[str]:
        """Names of what users avoid and items contain."""
        names: list[str] = json.loads(self._json("tag_names"))
        return names

    @cached_property
    def tag_places(self) -> dict[str, list[int]]:
        """Where each tag stands in the tables, by its key: more than once where a data set was prepared before keys."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.tags):
            places.setdefault(tag_key(name), []).append(place)
        return places

    @cached_property
    def contained(self) -> InputTables:
        """What each item contains, (I, T)."""
        return InputTables({"item": torch.from_numpy(np.asarray(self.static["item_contains"])).float()})

    @property
    def notice(self) -> str:  # type: ignore[override]  # nobody sets it
        """What people must be told with every answer."""
        return self.config.notice

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of what the model looks at, users' first."""
        return self.config.modalities()

    def _json(self, name: str) -> str:
        return bytes(np.asarray(self.static[name])).decode()

    def phases(self) -> tuple[Phase, ...]:
        """Return one stretch of training, in which frozen weights of encoders under LoRA do not move."""
        config = self.config
        if config.encoders == "frozen" or not (config.text.lora or config.image.lora):
            return (Phase(),)
        moving = ["project.*", "norm.*", "missing.*", "mixture.*", "head.*"]
        moving += ["id.*"] if "id" in config.of_items else []
        moving += trained_parts("text", config.text.lora) if "text" in config.of_users + config.of_items else ()
        moving += trained_parts("image", config.image.lora) if "image" in config.of_items else ()
        return (Phase(trains=tuple(moving)),)

    def collate(self, rows: Columns) -> PairsBatch:
        """Return the batch of these rows; `profile` (a mapping per row, or None) tells of users in no table.

        A profile has `text`, `attributes` and `avoid`, each optional, which take the place of what the tables say.

        Raises:
            RequestError: a profile holds what cannot be used.
        """
        user = np.array(rows["user"], np.int64)
        known, place = user >= 0, np.maximum(user, 0)
        if (user >= len(self.static["user_present"])).any():
            raise RequestError(f"user {int(user.max())}: there are {len(self.static['user_present'])} users")
        name = "user_tokens" if self.config.encoders == "trained" else "user_text"
        text = np.asarray(self.static[name][place]) if name in self.static else np.zeros((len(user), 0), np.float32)
        text, attributes = text.copy(), self.static["user_attributes"][place] * known[:, None]
        present = self.static["user_present"][place][:, [0, 2]] & known[:, None]
        avoid = self.static["user_avoid"][place] & known[:, None]
        for row, profile in enumerate(rows.get("profile") or ()):
            if profile is not None:
                self._describe(profile, row, text, attributes, present, avoid)
        history, target = flattened(rows["history"]), flattened(rows["target"])
        return PairsBatch(
            user_B=torch.from_numpy(user),
            text_BX=torch.from_numpy(text),
            attributes_BA=torch.from_numpy(np.ascontiguousarray(attributes, dtype=np.float32)),
            present_BM=torch.from_numpy(present),
            avoid_BT=torch.from_numpy(avoid),
            history_row_M=history[0],
            history_M=history[1],
            target_row_P=target[0],
            target_P=target[1],
        )

    def _describe(
        self,
        profile: Mapping[str, Any],
        row: int,
        text: np.ndarray,
        attributes: np.ndarray,
        present: np.ndarray,
        avoid: np.ndarray,
    ) -> None:
        """Write what a profile says over a row of the tables' values."""
        if given := str(profile.get("text") or "").strip():
            if self.tokens is None or "text" not in self.config.user:
                raise RequestError("profile.text: this model does not read users' texts itself")
            text[row], present[row, 0] = self.tokens.encode([given])[0], True
        if profile.get("attributes"):
            schema = Attributes.from_json(self._json("user_attribute_names"))
            attributes[row], present[row, 1] = schema.encode_one(profile["attributes"])
        for name in profile.get("avoid") or ():
            if tag_key(name) not in self.tag_places:
                known = ", ".join(self.tags) or "nothing: the data set does not tell what items contain"
                raise RequestError(f"avoid: {name!r} is not known; known: {known}")
            avoid[row, self.tag_places[tag_key(name)]] = True

    def loss(self, model: Callable[[PairsBatch], Any], batch: PairsBatch) -> dict[str, Term]:
        """Return the ranking loss over relevant pairs, and what keeps the gate even."""
        scored: HealthMoEScores = model(batch)
        negative_PC, positive_P = scored.negative_BC[scored.row_P], scored.positive_P
        some_P = negative_PC.isfinite().any(1)
        if not bool(some_P.all()):  # users who have everything
            self.left_out |= set(batch.user_B[scored.row_P[~some_P]].tolist())
            negative_PC, positive_P = negative_PC[some_P], positive_P[some_P]
        if self.config.loss == "bpr" and self.config.head == "ranking":
            allowed_PC = negative_PC.isfinite()
            gap_PC = torch.where(allowed_PC, negative_PC - positive_P[:, None], 0)
            part_PC = nn.functional.softplus(gap_PC) * allowed_PC
            total, name = (part_PC.sum(1) / allowed_PC.sum(1).clamp(min=1)).sum(), "bpr"
        else:
            logit = torch.cat([positive_P[:, None], negative_PC], 1)
            total = (logit.logsumexp(1) - positive_P).sum()
            name = "ce" if self.config.head == "classification" else "ss"
        terms = {name: Term(total, len(positive_P))}
        return terms | (self.config.mixture.terms([scored.mixed]) if scored.mixed is not None else {})

    def examples(self, batch: PairsBatch) -> RankingExamples:
        """Return users, relevant items, what is known of each user, and what users must not be shown."""
        known = batch.history_row_M, batch.history_M
        return RankingExamples(
            subject_B=batch.user_B,
            target=(batch.target_row_P, batch.target_P),
            left_out=known,
            known=known,
            forbidden_BI=self._forbidden(batch.avoid_BT),
        )

    def states(self, module: HealthMoEModel, batch: PairsBatch) -> dict[str, Tensor]:
        """Return users' joined projections, and what they avoid."""
        return {"state_BD": module.states(batch, module.catalogue()), "avoid_BT": batch.avoid_BT}

    def scores(self, module: HealthMoEModel, states: States, items: slice) -> Tensor:
        """Return users' scores of a range of items."""
        return module.all_scores(states["state_BD"], module.catalogue(), items)

    def forbidden(self, states: States) -> Tensor:
        """Return which items contain what a user must avoid, (B, I)."""
        return self._forbidden(states["avoid_BT"].bool())

    def reasons(self, states: States, example: int, item: int) -> list[str]:
        """Return what an item contains of what its user must avoid."""
        return self._contained(item, states["avoid_BT"][example])

    def hidden(self, batch: PairsBatch) -> Tensor:
        """Return which items are not ranked: padding, what is known of the user, what the user must not be shown."""
        hidden_BI = self._forbidden(batch.avoid_BT)
        hidden_BI[:, 0] = True
        hidden_BI[batch.history_row_M, batch.history_M] = True
        return hidden_BI

    def _forbidden(self, avoid_BT: Tensor) -> Tensor:
        contains_IT = self.contained.whole("item", avoid_BT.device)
        return torch.cat([avoid_BT.float() @ part_XT.T > 0 for part_XT in contains_IT.split(ITEMS_AT_ONCE)], 1)

    def details(self, module: HealthMoEModel, states: States, example: int, items: Sequence[int]) -> dict[str, Any]:
        """Return the share of each modality in some items' scores, and each expert's share."""
        state_D, item_ID = states["state_BD"][example], module.catalogue()
        index_K = torch.tensor(items, device=item_ID.device)
        part_KP, absent_KM = self._parts(module, state_D.expand(len(index_K), -1), item_ID, index_K)
        found: dict[str, Any] = {"modalities": _shares(part_KP, absent_KM)}
        if self.config.mixture.experts:
            found["experts"] = self.gates(module, state_D[None], item_ID, index_K[None])[0].tolist()
        return found

    def enrich(self, measured: Measured) -> list[str]:
        """Add what each modality is worth; return it in words."""
        return report.enrich(measured)

    def sections(self, measured: Measured, history: Sequence[Mapping[str, Any]]) -> list[Section]:
        """Return the worth of modalities and pictures, and what groups rely on."""
        return report.sections(measured)

    def analyser(self, module: HealthMoEModel) -> Callable[[PairsBatch], dict[str, Tensor]]:
        """Return a function that tells, per user, what each modality and every expert is worth."""
        return Analysis(self, module)

    def gates(self, module: HealthMoEModel, user_BD: Tensor, item_ID: Tensor, item_BK: Tensor) -> Tensor:
        """Return each expert's share for some items of each user, (B, K, E)."""
        if self.config.head == "classification":
            mixed = module.classify(user_BD)[1]
            assert mixed is not None
            return mixed.routing.dense()[:, None].expand(-1, item_BK.shape[1], -1)
        user_BKD = user_BD[:, None].expand(-1, item_BK.shape[1], -1)
        mixed = module.mix(torch.cat([user_BKD, item_ID[item_BK]], 2).flatten(0, 1))[1]
        assert mixed is not None
        return mixed.routing.dense().view(*item_BK.shape, -1)

    def _contained(self, item: int, avoid_T: Tensor) -> list[str]:
        inside_T = np.asarray(self.static["item_contains"][item], bool)
        return [tag for tag, inside, out in zip(self.tags, inside_T, avoid_T.tolist(), strict=True) if inside and out]

    def _parts(
        self, module: HealthMoEModel, state_KD: Tensor, item_ID: Tensor, index_K: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return scores as a score where nothing is known plus the Shapley value of each modality, (K, 1 + M).

        The value of a set of modalities is the score with all others missing, so the parts add up to the score. Also
        which modalities are not there, (K, M) bool.
        """
        config = self.config
        rankable = config.head == "ranking"
        names = [f"user_{n}" for n in config.of_users] + [f"item_{n}" for n in config.of_items]
        missing_MW = torch.stack([module.missing[name] for name in names])
        there_KD = torch.cat([state_KD, item_ID[index_K]], 1)
        there_KMW = there_KD.view(len(there_KD), len(names), -1)
        absent_KM = (there_KMW == missing_MW.to(there_KMW.dtype)).all(2)
        subset_SM = subsets(len(names)).to(there_KD.device)
        x_KSMW = torch.where(subset_SM[None, :, :, None], there_KMW[:, None], missing_MW)
        flat = x_KSMW.flatten(2).flatten(0, 1)
        if rankable:
            return shapley(module.score(flat)[0].view(len(index_K), -1)), absent_KM
        score_KSI = module.classify(flat)[0].view(len(index_K), len(subset_SM), -1)
        return shapley(score_KSI[torch.arange(len(index_K)), :, index_K]), absent_KM

    def explain(self, module: HealthMoEModel, batch: PairsBatch, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return each user's score of an item as what nothing known gives and what each modality adds.

        Raises:
            RequestError: an item contains what its user must avoid.
        """
        item_ID, index_B = module.catalogue(), torch.tensor(items)
        state_BD = module.states(batch, item_ID)
        (avoid_BT,) = to_host([batch.avoid_BT])
        for row, item in enumerate(items):
            if inside := self._contained(item, avoid_BT[row]):
                raise RequestError(f"this item is never recommended to this user: it contains {', '.join(inside)}")
        part_BP, absent_BM = self._parts(module, state_BD, item_ID, index_B)
        names = ["nothing known", *self.modalities]
        rows = zip(part_BP.tolist(), _shares(part_BP, absent_BM), strict=True)
        return [{"score": sum(parts), "parts": parts, "names": names, "modalities": m} for parts, m in rows]

    def catalogue(self, module: HealthMoEModel) -> dict[str, Tensor]:
        """Return the items' joined projections."""
        return {"projection_ID": module.catalogue()}

    def freeze(self, module: HealthMoEModel, catalogue: Mapping[str, Tensor]) -> None:
        """Let the module answer from a catalogue that was computed before."""
        module.frozen = catalogue["projection_ID"]

    @classmethod
    def sample(cls, rows: int, rng: np.random.Generator) -> tuple[Columns, dict[str, np.ndarray]]:
        """Return small random rows and tables that fit the declared columns."""
        items, users, tags, length, size = 24, rows, ["fish", "milk"], 8, 16
        tokenizer = learn_tokenizer(["salt soup", "sweet cake", "salt cake", "sweet soup"] * 3, 100)
        words = rng.integers(
            len(SPECIAL), Tokens(tokenizer, length).tokenizer.get_vocab_size(), (items + 1 + users, length)
        )
        present_I, present_U = rng.random((items + 1, 3)) < 0.8, rng.random((users, 3)) < 0.8
        present_I[:, 2] = True  # items of which nothing at all is known would tie
        schema = Attributes([]).to_json()
        tables = {
            "item_count": np.concatenate([[0], rng.integers(1, 3, items - 2), [0, 0]]),  # the last two are cold
            "item_present": present_I,
            "user_present": present_U,
            "item_attributes": rng.standard_normal((items + 1, 3)).astype(np.float32),
            "user_attributes": rng.standard_normal((users, 4)).astype(np.float32),
            "item_class": rng.integers(0, 3, items + 1).astype(np.int32),
            "item_contains": rng.random((items + 1, len(tags))) < 0.2,
            "user_avoid": rng.random((users, len(tags))) < 0.2,
            "item_tokens": words[: items + 1].astype(np.int32),
            "user_tokens": words[items + 1 :].astype(np.int32),
            "item_text": rng.standard_normal((items + 1, 5)).astype(np.float32),
            "user_text": rng.standard_normal((users, 5)).astype(np.float32),
            "item_image": rng.standard_normal((items + 1, 6)).astype(np.float32),
            "item_pixels": rng.integers(0, 256, (items + 1, size, size, 3)).astype(np.uint8),
        }
        texts = {"tag_names": json_text(tags), "tokenizer": tokenizer, "user_attribute_names": schema}
        tables |= {name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}
        liked = [rng.permutation(items - 2)[:5] + 1 for _ in range(rows)]
        columns = {
            "user": np.arange(rows),
            "history": [part[: n % 3].astype(np.int32) for n, part in enumerate(liked)],
            "target": [part[3 : 4 + n % 2].astype(np.int32) for n, part in enumerate(liked)],
        }
        return columns, tables


def _shares(part_KP: Tensor, absent_KM: Tensor) -> list[list[float | None]]:
    """Return each modality's share in the size of all parts but the first, (K, M), None for what is not there."""
    size_KM = part_KP[:, 1:].abs()
    share_KM = size_KM / size_KM.sum(1, keepdim=True).clamp(min=1e-12)
    return [or_none(shares, there) for shares, there in zip(share_KM.tolist(), ~absent_KM, strict=True)]
