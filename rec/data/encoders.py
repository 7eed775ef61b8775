"""Frozen text encoders: texts in, float32 vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rec.errors import ConfigError


def tfidf_svd(texts: Sequence[str], width: int) -> np.ndarray:
    """Return L2-normalised truncated-SVD components of TF-IDF vectors, (len(texts), width) float32.

    Offline and deterministic: words and pairs of words, sublinear term frequency, 2**18 features at most. Where the
    vocabulary is smaller than `width` the remaining components are 0; so is a text without a known word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), min_df=2 if len(texts) > 50 else 1, max_features=1 << 18
    )
    matrix = vectorizer.fit_transform(texts)
    components = min(width, matrix.shape[1] - 1, matrix.shape[0] - 1)
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    vectors[:, :components] = TruncatedSVD(components, random_state=0).fit_transform(matrix)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 1e-8, norm, 1)


class TransformerEncoder:
    """A transformers text model by name or path; loads once, then encodes batches.

    Mean pooling averages the last hidden states over the tokens that are no padding; cls takes the first token's.
    """

    def __init__(self, name: str, pooling: str, max_tokens: int, threads: int = 1) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self.model: Any = AutoModel.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.text.encoder: {name!r} is no text model that loads here ({error})") from error
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device)
        self.pooling, self.max_tokens = pooling, max_tokens

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), width) float32."""
        import torch

        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            hidden_BLM = self.model(**tokens).last_hidden_state.float()
        if self.pooling == "cls":
            return np.asarray(hidden_BLM[:, 0].cpu().numpy())
        mask_BL1 = tokens["attention_mask"][..., None].float()
        return np.asarray(((hidden_BLM * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)).cpu().numpy())
