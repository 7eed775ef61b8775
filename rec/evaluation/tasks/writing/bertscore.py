"""BERTScore of each text, by any transformers encoder.

The package bert-score is not used: beside transformers 5 it fails at empty texts, and passes RoBERTa's tokenizer an
option for the blank before the first word that this version ignores, so that its scores are not the published ones.

Letters: N texts, L tokens of texts, M of references, D width of a hidden state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec.errors import ConfigError, not_loaded
from rec.evaluation.tasks.writing_config import BertScoreConfig

NAMES = ("bertscore_f", "bertscore_p", "bertscore_r")
BLANK_FIRST = ("roberta", "gpt2", "longformer", "bart")
"""Kinds of models whose tokens of a word hold the blank before it."""


def bertscore(texts: Sequence[str], references: Sequence[str], encoder: Encoder) -> dict[str, np.ndarray]:
    """Return F, precision and recall of each text, float64 (N,) each, rescaled where there is a baseline.

    Each token of one side is compared with the most similar one of the other, by the cosine of their hidden states;
    the tokens that the model puts around a text can be found but do not count themselves. Precision is the mean over
    the text's tokens, recall that over the reference's. A text or reference without tokens scores 0 before rescaling.

    Source: Zhang et al., BERTScore, ICLR 2020, without idf weights.
    """
    size = encoder.config.batch_size
    parts = [
        _scores(encoder.states(texts[at : at + size]), encoder.states(references[at : at + size]))
        for at in range(0, len(texts), size)
    ]
    found_N3 = np.concatenate(parts) if parts else np.zeros((0, 3))
    found_N3 = (found_N3 - encoder.baseline_3) / (1 - encoder.baseline_3)
    return dict(zip(NAMES, found_N3[:, [2, 0, 1]].T, strict=True))


def encoder_of(config: BertScoreConfig) -> Encoder | None:
    """Return the model that a config names, None where it names none."""
    return Encoder(config) if config.model else None


def _baseline(config: BertScoreConfig) -> np.ndarray:
    """Return what precision, recall and F of unrelated texts are at the layer, (3,); zeros without a baseline."""
    if not config.baseline:
        return np.zeros(3)
    try:
        lines = Path(config.baseline).read_text().split("\n")[1:]
        rows = [[float(cell) for cell in line.replace("\t", ",").split(",")] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"evaluate.bertscore.baseline: {config.baseline!r} cannot be read ({error})") from error
    found = [row[1:] for row in rows if row[0] == config.layer and len(row) == 4]
    if not found:
        raise ConfigError(
            f"evaluate.bertscore.baseline: {config.baseline!r} has no row LAYER,P,R,F of layer {config.layer}"
        )
    return np.array(found[0])


class Encoder:
    """Normalised hidden states of texts.

    Raises:
        ConfigError: there is no such model here, it has not that many layers, or the baseline cannot be read.
    """

    def __init__(self, config: BertScoreConfig) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.model)
            self.model: Any = AutoModel.from_pretrained(config.model).eval()
        except (OSError, ValueError) as error:
            raise not_loaded("evaluate.bertscore.model", config.model, "text model", error) from error
        layers = self.model.config.num_hidden_layers
        if config.layer > layers:
            raise ConfigError(f"evaluate.bertscore.layer: {config.layer}, but {config.model!r} has {layers} layers")
        self.config, self.baseline_3 = config, _baseline(config)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        self.blank = " " if self.model.config.model_type in BLANK_FIRST else ""
        # RoBERTa counts places from behind its padding's id.
        first = (self.model.config.pad_token_id or 0) + 1 if "roberta" in self.model.config.model_type else 0
        places = getattr(self.model.config, "max_position_embeddings", None)
        self.most = min(self.tokenizer.model_max_length, places - first if places else 512)

    @torch.inference_mode()
    def states(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Return, for each text, the states of its tokens, (L, D), and which of them count, bool (L,)."""
        told = self.tokenizer(
            [self.blank + text.strip() for text in texts],
            padding=True,
            truncation=True,
            max_length=self.most,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        special_BL = told.pop("special_tokens_mask").bool()
        mask_BL = told["attention_mask"].bool()
        hidden_BLD = self.model(**told.to(self.device), output_hidden_states=True).hidden_states[self.config.layer]
        state_BLD = torch.nn.functional.normalize(hidden_BLD.float(), dim=2).cpu()
        return [
            (state_LD[mask_L], ~special_L[mask_L])
            for state_LD, mask_L, special_L in zip(state_BLD, mask_BL, special_BL, strict=True)
        ]


def _scores(texts: Sequence[tuple[Tensor, Tensor]], references: Sequence[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Return precision, recall and F of each text, (N, 3)."""
    found = np.zeros((len(texts), 3))
    for place, ((state_LD, counts_L), (other_MD, counts_M)) in enumerate(zip(texts, references, strict=True)):
        if not counts_L.any() or not counts_M.any():
            continue
        similar_LM = state_LD @ other_MD.T
        precision = float(similar_LM.amax(1)[counts_L].mean())
        recall = float(similar_LM.amax(0)[counts_M].mean())
        both = precision + recall
        found[place] = precision, recall, 2 * precision * recall / both if both else 0.0
    return found
