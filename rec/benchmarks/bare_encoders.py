"""A bare loop of transformers over pictures and texts, in one process, and the encoders that it runs.

Encoders have random weights: throughput does not depend on them.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from rec.data.encoders import learn_tokenizer
from rec.data.generated.food import FoodConfig, food_rows

BATCH = 32


def models(folder: Path, size: int) -> dict[str, str]:
    """Write a ViT (4 layers of 192) and a BERT (4 layers of 256) with random weights and return their paths.

    Args:
        folder: Where to write them.
        size: Side of a picture in pixels.
    """
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

    torch.manual_seed(0)
    vit, bert = folder / "vit", folder / "bert"
    form = ViTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768, image_size=size
    )
    ViTModel(form, add_pooling_layer=False).save_pretrained(vit)
    known = [
        text for text in food_rows(FoodConfig(pairs=1000, foods=512, missing=0.0), 0, 512)["text"].to_pylist() if text
    ]
    tokenizer: Any = Tokenizer.from_str(learn_tokenizer(known, 2000))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(bert)
    words = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
    )
    BertModel(words, add_pooling_layer=False).save_pretrained(bert)
    return {"vit": str(vit), "bert": str(bert)}


def pictures(source: str, models: Mapping[str, str], threads: int) -> float:
    """Return the seconds per 1,000 pictures: decoded, scaled, normalised, one forward pass per batch."""
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model: Any = AutoModel.from_pretrained(models["vit"]).eval()
    size = model.config.image_size
    values = pq.read_table(source, columns=["image"])["image"].to_pylist()
    start_s = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            batch = [
                Image.open(io.BytesIO(v)).convert("RGB").resize((size, size)) for v in values[start : start + BATCH]
            ]
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in batch])).permute(0, 3, 1, 2).float()
            model(pixel_values=pixels / 127.5 - 1).last_hidden_state[:, 0].numpy()
    return 1000 * (time.perf_counter() - start_s) / len(values)


def texts(source: str, models: Mapping[str, str], threads: int) -> float:
    """Return the seconds per 1,000 texts: tokens and one forward pass per batch."""
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    model: Any = AutoModel.from_pretrained(models["bert"]).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(models["bert"])
    values = pq.read_table(source, columns=["text"])["text"].to_pylist()
    start_s = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(values), BATCH):
            tokens = tokenizer(
                values[start : start + BATCH], padding=True, truncation=True, max_length=32, return_tensors="pt"
            )
            model(**tokens).last_hidden_state[:, 0].numpy()
    return 1000 * (time.perf_counter() - start_s) / len(values)
