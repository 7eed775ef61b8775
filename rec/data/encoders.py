"""Frozen encoders, texts or pictures in, float32 vectors out; and a tokenizer learned from texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rec.data.images import raw_features
from rec.errors import ConfigError, not_loaded
from rec.json_text import json_text

PAD, UNKNOWN = "[PAD]", "[UNK]"
SPECIAL = (PAD, UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
END = "[END]"
"""The token after the last one of a text, of the byte tokenizer."""
NOTHING_LEARNED = ("empty vocabulary", "no terms remain")
"""What scikit-learn says of texts without a word, or none of which share one."""
MANY = 50
"""Texts from which on a word must be in two of them."""
ROWS_AT_ONCE = 4096
"""Texts whose vectors are made at once, in twice the precision that they are kept in."""
LONGEST_WORD = 100
"""Letters of the longest word that a WordPiece tokenizer looks at."""


class Tfidf:
    """Truncated SVD of TF-IDF vectors, L2-normalised; fitted on some texts, applied to any.

    Offline and deterministic: words and pairs of words, sublinear term frequency, 2**18 features at most. Where the
    vocabulary is smaller than `width` the remaining components are 0; so is a text without a known word, and every
    text where no word could be learned.
    """

    def __init__(self, texts: Sequence[str], width: int) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.width = width
        self.vectorizer = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), min_df=2 if len(texts) > MANY else 1, max_features=1 << 18
        )
        self.basis_FC: np.ndarray | None = None
        """Features in components, in the order of memory that products want; None where nothing was learned."""
        self._fit(texts)

    @classmethod
    def learned(cls, texts: Sequence[str], width: int) -> tuple[Tfidf, np.ndarray]:
        """Return what these texts teach, and their vectors, without reading them twice."""
        found = cls((), width)
        found.vectorizer.min_df = 2 if len(texts) > MANY else 1
        matrix = found._fit(texts)
        return found, found._vectors(len(texts), matrix)

    def _fit(self, texts: Sequence[str]) -> Any:
        """Learn from texts and return their words as a matrix, None where there is nothing to learn."""
        from sklearn.decomposition import TruncatedSVD

        try:
            matrix = self.vectorizer.fit_transform(texts)
        except ValueError as error:
            if not any(words in str(error) for words in NOTHING_LEARNED):
                raise
            return None
        rows, features = matrix.shape
        if features == 1:  # of which there is no decomposition
            self.basis_FC = np.ones((1, 1))
            return matrix
        svd = TruncatedSVD(min(self.width, features, rows), random_state=0)
        with np.errstate(invalid="ignore"):  # a single text has no variance to tell the shares of
            self.basis_FC = np.ascontiguousarray(svd.fit(matrix).components_.T)
        return matrix

    @property
    def note(self) -> str:
        """What people must be told: that nothing was learned."""
        few = f"no word of two letters to learn from (that two texts share, of more than {MANY})"
        return f"tfidf: {few}; all vectors are 0" if self.basis_FC is None else ""

    def identity(self) -> list[bytes]:
        """Return what tells it from others."""
        if self.basis_FC is None:
            return [b"nothing learned"]
        return [self.basis_FC.T.tobytes(), repr(sorted(self.vectorizer.vocabulary_)).encode()]

    def state(self) -> tuple[list[str], dict[str, np.ndarray]]:
        """Return the words it knows and the arrays that `restored` makes it again from, exactly."""
        if self.basis_FC is None:
            return [], {}
        place = self.vectorizer.vocabulary_
        arrays = {"idf": np.asarray(self.vectorizer.idf_), "basis": np.ascontiguousarray(self.basis_FC.T)}
        return sorted(place, key=place.__getitem__), arrays

    @classmethod
    def restored(cls, width: int, words: Sequence[str], arrays: Mapping[str, np.ndarray]) -> Tfidf:
        """Return the one whose `state` this is."""
        found = cls((), width)
        if words:
            found.vectorizer.vocabulary = list(words)
            found.vectorizer.idf_ = arrays["idf"]
            found.basis_FC = np.ascontiguousarray(arrays["basis"].T)
        return found

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), width) float32."""
        return self._vectors(len(texts), self.vectorizer.transform(texts) if texts and self.note == "" else None)

    def _vectors(self, rows: int, matrix: Any) -> np.ndarray:
        vectors = np.zeros((rows, self.width), dtype=np.float32)
        if self.basis_FC is None or matrix is None:
            return vectors
        for start in range(0, rows, ROWS_AT_ONCE):
            part = vectors[start : start + ROWS_AT_ONCE]
            part[:, : self.basis_FC.shape[1]] = matrix[start : start + ROWS_AT_ONCE] @ self.basis_FC
            norm = np.linalg.norm(part, axis=1, keepdims=True)
            part /= np.where(norm > 1e-8, norm, 1)
        return vectors


class Hashing:
    """Words and pairs of words hashed to `width` places with a sign, L2-normalised: stateless and offline.

    A text without a word of two letters is 0.
    """

    note = ""

    def __init__(self, width: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.width = width
        self.vectorizer = HashingVectorizer(n_features=width, ngram_range=(1, 2))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), width) float32."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return np.asarray(self.vectorizer.transform(texts).toarray(), np.float32)


class TransformerEncoder:
    """A transformers text model (CLIP's included) by name or path; loads once, then encodes batches.

    Mean pooling averages the last hidden states over the tokens that are no padding; cls takes the first token's; own
    is what files of sentence-transformers say, else the mean. A CLIP gives the vector that it compares with pictures.
    Static embeddings of sentence-transformers, a vector per token, are taken as well.
    """

    def __init__(self, name: str, pooling: str, max_tokens: int, threads: int = 1, device: str = "cpu") -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        from rec.data.pooling import pooling_of
        from rec.data.static_embedding import static_embedding

        torch.set_num_threads(threads)
        self.name = name
        self.tokenizer: Any
        self.model: Any
        try:
            self.pool = pooling_of(name, pooling)
            if self.pool.static:
                self.tokenizer, self.model = static_embedding(name, self.pool.folder)
            else:
                self.tokenizer = AutoTokenizer.from_pretrained(name, subfolder=self.pool.folder)
                self.model = AutoModel.from_pretrained(name, subfolder=self.pool.folder).eval()
        except (OSError, ValueError) as error:
            raise not_loaded("text.encoder", name, "text model", error) from error
        self.device = _on(device)
        self.model.to(self.device)
        self.pooling, self.max_tokens = pooling, max_tokens

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), width) float32."""
        import torch

        tokens = self.tokenizer(
            [self.pool.before(_whole(text)) for text in texts],
            padding=True,
            truncation=True,
            max_length=min(self.max_tokens, self.pool.longest or self.max_tokens),
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            if hasattr(self.model, "get_text_features"):
                return _pooled(self.model.get_text_features(**tokens))
            return self.pool(self.model(**tokens).last_hidden_state, tokens["attention_mask"])


class VisionEncoder:
    """A transformers vision model (CLIP's included) by name or path; loads once, then encodes batches.

    The vector is the state of the class token; a CLIP gives the one that it compares with texts. Pictures are scaled
    to the model's size and normalised as its preprocessor file says.
    """

    def __init__(self, name: str, threads: int = 1, device: str = "cpu") -> None:
        import torch
        from transformers import AutoConfig, AutoModel
        from transformers.models.auto.image_processing_auto import get_image_processor_config

        torch.set_num_threads(threads)
        try:
            config = AutoConfig.from_pretrained(name)
            self.model: Any = AutoModel.from_pretrained(name).eval()
            given = get_image_processor_config(name)
        except (OSError, ValueError) as error:
            raise not_loaded("image.encoder", name, "vision model", error) from error
        self.size = int(getattr(config, "vision_config", config).image_size)
        self.device = _on(device)
        self.model.to(self.device)
        mean, deviation = (given.get(key, [0.5] * 3) for key in ("image_mean", "image_std"))
        self.mean, self.deviation = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (mean, deviation))

    def encode(self, pixels_NHW3: np.ndarray) -> np.ndarray:
        """Return (N, width) float32 for pictures of the model's size."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(pixels_NHW3).to(self.device).permute(0, 3, 1, 2).float() / 255
            pixels = (pixels - self.mean) / self.deviation
            if hasattr(self.model, "get_image_features"):
                return _pooled(self.model.get_image_features(pixel_values=pixels))
            hidden_NLM = self.model(pixel_values=pixels).last_hidden_state
            return np.asarray(hidden_NLM[:, 0].float().cpu().numpy())


class RawImages:
    """Plain features of pictures, for baselines without a learned encoder."""

    size = 32

    def encode(self, pixels_NHW3: np.ndarray) -> np.ndarray:
        """Return (N, width) float32."""
        return np.stack([raw_features(pixels) for pixels in pixels_NHW3])


def learn_tokenizer(texts: Sequence[str], vocabulary: int) -> str:
    """Return a WordPiece tokenizer as BERT's, learned from texts, as the JSON of the tokenizers library.

    The pieces are the most frequent words, and all characters for the others; the same texts give the same pieces,
    which the library's own trainer does not promise.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    normal = (normalizer.normalize_str(_whole(text)) for text in texts)
    counts = Counter(word for t in normal for word, _ in splitter.pre_tokenize_str(t) if len(word) <= LONGEST_WORD)
    letters = sorted({letter for word in counts for letter in word})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    frequent = sorted((word for word in counts if counts[word] > 1 and len(word) > 1), key=lambda w: (-counts[w], w))
    pieces += frequent[: max(vocabulary - len(pieces), 0)]
    found: Any = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token=UNKNOWN))
    found.normalizer, found.pre_tokenizer, found.decoder = normalizer, splitter, decoders.WordPiece()
    ids = [(name, found.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return str(found.to_str())


def learn_byte_tokenizer(texts: Sequence[str], vocabulary: int) -> str:
    """Return a byte-level BPE tokenizer as GPT-2's, learned from texts, as the JSON of the tokenizers library.

    It knows every text, and gives back each as it was, so that a language model can write with it. The same texts give
    the same pieces, in whatever order they come.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    found: Any = Tokenizer(models.BPE())
    found.pre_tokenizer, found.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    found.train_from_iterator((_whole(text) for text in texts), trainer)
    return str(found.to_str())


def tokenizer_json(name: str) -> str:
    """Return a tokenizer of transformers by name or path, as the JSON of the tokenizers library."""
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise not_loaded("data.encode.text.tokenizer", name, "tokenizer", error, ', or "local" or "bytes"') from error
    return str(loaded.backend_tokenizer.to_str())


class Tokens:
    """Texts to token ids of one length, by the JSON of a tokenizer; padding is 0 where nothing else is said."""

    def __init__(self, text: str, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_str(text)
        self.tokenizer.enable_truncation(max_tokens)
        pad = self.tokenizer.token_to_id(PAD)
        self.pad = 0 if pad is None else pad
        self.tokenizer.enable_padding(length=max_tokens, pad_id=self.pad, pad_token=PAD)
        self.max_tokens = max_tokens

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), max_tokens) int32."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch([_whole(text) for text in texts])]
        return np.array(ids, dtype=np.int32).reshape(len(texts), self.max_tokens)


def _whole(text: str) -> str:
    """Return a text with a question mark for each half of a surrogate pair, of which no tokenizer can be told."""
    return text.encode("utf-8", "replace").decode()


def _on(device: str) -> str:
    """Return a device that torch has.

    Raises:
        ConfigError: it is a GPU, and torch finds none.
    """
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"data.encode.gpus_per_actor: an encoder is to work on {device!r}, but torch finds no GPU there"
        )
    return device


def _pooled(output: Any) -> np.ndarray:
    found = getattr(output, "pooler_output", output)
    return np.asarray(found.float().cpu().numpy())


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A frozen encoder of texts with what is done to them before: the same at preparing and at serving."""

    encoder: Tfidf | Hashing | TransformerEncoder
    max_characters: int
    """Longer texts are cut there."""
    batch_size: int = 32
    """Texts per pass of a transformers model; the others take all at once."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return (len(texts), width) float32, zeros for texts that are empty."""
        cut = [text.strip()[: self.max_characters] for text in texts]
        once = {text: n for n, text in enumerate(dict.fromkeys(cut))}
        if not once:
            once = {"": 0}
        different = list(once)
        size = self.batch_size if isinstance(self.encoder, TransformerEncoder) else len(different)
        parts = [self.encoder.encode(different[at : at + size]) for at in range(0, len(different), size)]
        vector_ND = np.concatenate(parts).astype(np.float32, copy=False)
        if "" in once:
            vector_ND[once[""]] = 0
        return vector_ND[[once[text] for text in cut]]

    def to_table(self) -> np.ndarray:
        """Return what `text_encoder_from` makes it again from, uint8."""
        from safetensors.numpy import save

        told: dict[str, Any] = {"max_characters": self.max_characters}
        arrays: dict[str, np.ndarray] = {}
        if isinstance(self.encoder, Tfidf):
            told |= {"encoder": "tfidf", "width": self.encoder.width}
            words, arrays = self.encoder.state()
            told["words"] = words
        elif isinstance(self.encoder, Hashing):
            told |= {"encoder": "hashing", "width": self.encoder.width}
        else:
            told |= {"encoder": self.encoder.name, "pooling": self.encoder.pooling}
            told["max_tokens"] = self.encoder.max_tokens
        arrays = {"told": np.frombuffer(json_text(told).encode(), np.uint8), **arrays}
        return np.frombuffer(save(arrays), np.uint8)


def text_encoder_from(table: np.ndarray, threads: int = 1) -> TextEncoder:
    """Return the encoder that made the texts of a data set, from its table `text_encoder`."""
    from safetensors.numpy import load

    arrays = load(np.asarray(table, np.uint8).tobytes())
    told = json.loads(arrays["told"].tobytes())
    encoder: Tfidf | Hashing | TransformerEncoder
    if told["encoder"] == "tfidf":
        encoder = Tfidf.restored(told["width"], told["words"], arrays)
    elif told["encoder"] == "hashing":
        encoder = Hashing(told["width"])
    else:
        encoder = TransformerEncoder(told["encoder"], told["pooling"], told["max_tokens"], threads)
    return TextEncoder(encoder, told["max_characters"])
