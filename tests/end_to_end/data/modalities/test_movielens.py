"""What retrieval and faithfulness reach on films."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from rec.data.modalities.faithfulness import Checker
from rec.data.modalities.index import index_of
from rec.data.modalities.knowledge_config import KnowledgeConfig
from rec.data.modalities.passages import Retrieved
from rec.data.modalities.rarity import Rarity
from rec.data.modalities.retrieval import Retriever
from rec.data.modalities.thresholds import choose_thresholds, plant
from rec.data.runner import InProcess
from rec.data.sources.metadata import FIELDS, fill, read_items
from rec.data.texts import TEMPLATES, write_texts

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def films(movielens: Path) -> dict[str, dict[str, str]]:
    """Return what is known of the films of the SASRec file, by their original ids."""
    ids = [line.split()[1] for line in (movielens / "ml-1m/sas_to_original_items.txt").read_text().splitlines()]
    metadata = read_items(str(movielens / "metadata/ml1m_movies_extrainfos.dat"))
    frame = fill(read_items(str(movielens / "ml-1m")), metadata).set_index("item").loc[ids]
    return dict(zip(ids, frame[list(FIELDS)].to_dict("records"), strict=True))


@pytest.fixture(scope="module")
def found(
    movielens: Path, films: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Retrieved]]:
    config = KnowledgeConfig(paths=(str(movielens / "metadata/msmrec_meta_ml1m.csv"),))
    index = index_of(config, str(tmp_path_factory.mktemp("index")), InProcess(), lambda text: None)
    return dict(zip(films, Retriever(index, config).retrieve(list(films.values())), strict=True))


@pytest.fixture(scope="module")
def overviews(movielens: Path) -> dict[str, list[str]]:
    """Return the overviews of each id, one line each."""
    table = pd.read_csv(movielens / "metadata/msmrec_meta_ml1m.csv", dtype=str, keep_default_na=False)
    rows: dict[str, list[str]] = defaultdict(list)
    for item, text in zip(table["MovieID"], table["overview"], strict=True):
        if text.strip():
            rows[item].append(re.sub(r"\s+", " ", text).strip())
    return rows


def test_films_have_knowledge_where_the_file_has_a_text_of_them(
    films: dict[str, dict[str, str]], found: dict[str, list[Retrieved]], overviews: dict[str, list[str]]
) -> None:
    known = [item for item in films if item in overviews]
    assert (len(films), len(known)) == (3416, 2277)
    assert all(found[item] for item in known)
    # Further films have the title and year of another id's row.
    assert sum(map(bool, found.values())) - len(known) == 2


def test_the_overview_most_like_the_plot_is_taken_of_several(
    films: dict[str, dict[str, str]], found: dict[str, list[Retrieved]], overviews: dict[str, list[str]]
) -> None:
    several = [item for item in films if len(overviews.get(item, ())) > 1 and films[item]["plot"]]
    vectors = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    vectors.fit([text for item in films for text in (films[item]["plot"], *overviews.get(item, ()))])
    right, clear = [], []
    for item in several:
        like = (vectors.transform(overviews[item]) @ vectors.transform([films[item]["plot"]]).T).toarray()[:, 0]
        best, second = np.sort(like)[:-3:-1]
        right.append(found[item][0].passage.text[:60] in overviews[item][int(like.argmax())])
        clear.append(best > 0.1 and best - second > 0.6 * best)
    assert "Vincent Hanna" in found["6"][0].passage.text  # "Heat" of 1995
    assert len(several) == 330
    assert np.mean(right) >= 0.8  # remakes tell the same story
    assert np.mean([one for one, sure in zip(right, clear, strict=True) if sure]) >= 0.97
    assert sum(clear) >= 200


def test_planted_inventions_in_template_texts_are_found(
    films: dict[str, dict[str, str]], found: dict[str, list[Retrieved]]
) -> None:
    names = tuple(TEMPLATES)
    items = list(films)[::4]
    rows = [write_texts(films[item], names) for item in items]
    sources = [
        [*(v for k, v in films[i].items() if v and k != "poster_url"), *(one.passage.text for one in found[i])]
        for i in items
    ]
    groups = [films[item]["genres"].split(",")[0] for item in items]
    checker = Checker(Rarity.learned(sources))
    half = len(items) // 2
    chosen = choose_thresholds(checker, rows[:half], sources[:half], 0.05, np.random.default_rng(0), groups[:half])
    alarms, hits = list[bool](), list[bool]()
    planted = plant(rows[half:], np.random.default_rng(1), groups[half:])
    for row, changed, known in zip(rows[half:], planted, sources[half:], strict=True):
        lies = [text if text and checker.lacking(text, known) else "" for text in changed]
        for texts, told in ((row, alarms), (lies, hits)):
            scores = [one.score for one in checker.check(texts, known)]
            told += [s < t.value for s, t, text in zip(scores, chosen, texts, strict=True) if text.strip() and t]
    assert len(hits) > 3000
    assert np.mean(hits) >= 0.95
    assert np.mean(alarms) <= 0.05
