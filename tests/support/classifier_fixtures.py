"""What tests of modalities share."""

import pytest

from tests.support.films import HEAT


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory):
    """Return what makes a small model of natural-language inference with some classes, in a folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    from rec.data.encoders import learn_tokenizer

    def make(*classes: str) -> str:
        folder = str(tmp_path_factory.mktemp("nli"))
        tokenizer = Tokenizer.from_str(learn_tokenizer([*HEAT, "Sharks attack swimmers."] * 2, 300))
        transformers.BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
        config = transformers.BertConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8, max_position_embeddings=64, id2label=dict(enumerate(classes)),
            label2id={name: n for n, name in enumerate(classes)},
        )  # fmt: skip
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make
