from typing import Any

import numpy as np
import pytest
import torch

from rec.data.views.sentences import as_table
from rec.systems.gavamoe import GaVaMoE
from rec.systems.gavamoe.config import GaVaMoEConfig, PairsConfig
from rec.systems.gavamoe.mixture import fitted
from rec.systems.gavamoe.model import MIXTURE, VAE, GaVaMoEModel
from rec.systems.gavamoe.pairs import attended
from rec.train.config import TrainConfig
from rec.train.optim import learning_rate
from tests.conformance import take


def built(**pairs: Any) -> tuple[GaVaMoE, dict[str, Any], GaVaMoEModel]:
    """Return a system on its sample, its rows, and a model whose prior tells clusters apart."""
    rows, tables = GaVaMoE.sample(12, np.random.default_rng(0))
    language = {"width": 8, "layers": 1, "heads": 1, "hidden": 8}
    system = GaVaMoE(GaVaMoEConfig.model_validate({"pairs": pairs, "language": language}), tables)
    module = system.model()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.prior.parameters():
            parameter.normal_(std=0.3)
        for embedding in (module.pairs.bias_user, module.pairs.bias_item):
            embedding.weight.normal_()
    return system, dict(rows), module.eval()


@pytest.mark.parametrize("index", [[0], [3, 1], [11, 5, 2, 0, 7]])
@torch.no_grad()
def test_a_pair_does_not_depend_on_its_company(index: list[int]) -> None:
    system, rows, module = built(item_vectors=["text"])
    whole, part = system.collate(rows), system.collate(take(rows, index))
    wanted, found = (module.pairs(batch.user_B, batch.item_B) for batch in (whole, part))
    torch.testing.assert_close(found.mean_BZ, wanted.mean_BZ[index])
    torch.testing.assert_close(found.log_variance_BZ, wanted.log_variance_BZ[index])
    assert module.clusters(part).tolist() == module.clusters(whole)[index].tolist()


@torch.no_grad()
def test_assignment_depends_on_no_seed_and_on_no_training_before() -> None:
    system, rows, module = built()
    batch = system.collate(rows)
    wanted, ratings = module.clusters(batch), module.ratings(batch)
    module.train()
    module(batch)
    torch.manual_seed(99)
    module.eval()
    assert module.clusters(batch).tolist() == wanted.tolist()
    assert torch.equal(module.ratings(batch), ratings)


@torch.no_grad()
def test_strangers_are_of_the_heaviest_cluster_and_share_their_vector() -> None:
    system, rows, module = built()
    heaviest = int(module.prior.weight_C.argmax())
    # User 6 and item 8 are in the tables, but in no review of training.
    strangers = rows | {"user": np.array([-1, 6, 2, 2]), "item": np.array([3, 3, -1, 8])}
    batch = system.collate({name: column[:4] for name, column in strangers.items()})
    assert module.clusters(batch).tolist() == [heaviest] * 4
    assert module.pairs.strange(batch.user_B, batch.item_B).all()
    user_BF, item_BF = module.pairs.user_vector(batch.user_B), module.pairs.item_vector(batch.item_B)
    assert torch.equal(user_BF[0], user_BF[1])
    assert torch.equal(item_BF[2], item_BF[3])
    assert module.ratings(batch).isfinite().all()


@torch.no_grad()
def test_a_new_item_with_vectors_is_no_stranger() -> None:
    system, rows, module = built(item_vectors=["text", "image"])
    rows |= {"user": np.array([2, 2, 2]), "item": np.array([8, 7, -1])}
    batch = system.collate({name: column[:3] for name, column in rows.items()})
    assert module.pairs.strange(batch.user_B, batch.item_B).tolist() == [False, False, True]


@torch.no_grad()
def test_item_vectors_reach_the_latent() -> None:
    system, rows, module = built(item_vectors=["image"])
    batch = system.collate(rows)
    before_BZ = module.pairs(batch.user_B, batch.item_B).mean_BZ
    module.pairs.vectors_image.mul_(-1)
    assert not torch.allclose(module.pairs(batch.user_B, batch.item_B).mean_BZ, before_BZ)


def losses(system: GaVaMoE, module: GaVaMoEModel, rows: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the mean and the weight of each term."""
    return {n: (float(t.mean), t.weight) for n, t in system.loss(module, system.collate(rows)).items()}


@torch.no_grad()
def test_paper_scaling_is_the_published_sum() -> None:
    found = {}
    for paper in (False, True):
        system, rows, module = built(embedding=768, latent=8, layers=0, beta=0.01 / 1536, paper_scaling=paper)
        module.phase = MIXTURE
        found[paper] = losses(system, module, rows)
    (ce, _), (kl, _) = found[False]["rating_ce"], found[False]["kl"]
    total = {paper: sum(mean * weight for mean, weight in terms.values()) for paper, terms in found.items()}
    assert total[False] == pytest.approx(ce + 0.01 / 1536 * kl)
    assert total[True] == pytest.approx(0.1 * (1536 * ce + 0.01 * kl))


def test_beta_follows_the_published_schedule() -> None:
    config = PairsConfig(beta=0.01, beta_schedule=True)
    found = [config.beta_at(epoch) for epoch in range(30)]
    assert found == pytest.approx([0.01] * 5 + [0.015] * 5 + [0.02] * 5 + [0.025] * 5 + [0.03] * 5 + [0.035] * 5)
    assert config.beta_at(1000) == pytest.approx(0.1)
    assert PairsConfig(beta=0.01).beta_at(29) == 0.01


@torch.no_grad()
def test_the_divergence_weighs_as_its_epoch_says_in_training_alone() -> None:
    system, rows, module = built(beta=0.01, beta_schedule=True)
    module.phase = MIXTURE
    system.start_epoch(module, 7)
    assert losses(system, module, rows)["kl"][1] == pytest.approx(0.01)
    assert losses(system, module.train(), rows)["kl"][1] == pytest.approx(0.015)


def test_the_first_phase_has_no_noise_and_no_divergence() -> None:
    system, rows, module = built(dropout=0.0, unknown_share=0.0)
    module.phase = VAE
    first, again = losses(system, module.train(), rows), losses(system, module.train(), rows)
    assert first == again
    assert first.keys() == {"rating_ce"}


@torch.no_grad()
def test_a_bias_moves_its_own_ratings_alone() -> None:
    system, rows, module = built(unknown_share=0.0)
    batch = system.collate(rows)
    before_B = module.ratings(batch)
    module.pairs.bias_user.weight[2] += 3
    moved_B = module.ratings(batch) > before_B
    assert moved_B.tolist() == (batch.user_B == 2).tolist()
    assert 0 < moved_B.sum() < len(batch)


@torch.no_grad()
def test_a_model_that_knows_nothing_yet_predicts_about_the_mean_rating() -> None:
    system, rows, module = built()
    for table in (module.pairs.bias_user, module.pairs.bias_item):
        table.weight.zero_()
    count_R = np.array([1, 1, 2, 4, 9]) + 1
    mean = float((count_R * np.arange(1, 6)).sum() / count_R.sum())
    assert module.ratings(system.collate(rows)).tolist() == pytest.approx([mean] * 12, abs=0.25)


@pytest.mark.parametrize(("positions", "heads"), [(2, 4), (3, 1), (4, 2)])
def test_attention_over_few_positions_is_that_of_torch(positions: int, heads: int) -> None:
    torch.manual_seed(0)
    parts = torch.randn(3, 5, positions, 8)
    query, key, value = (part.view(5, positions, heads, -1).transpose(1, 2) for part in parts)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attended(*parts, heads), wanted)


@pytest.mark.parametrize(("warmup", "first"), [(4, 0.25), (1, 1.0), (0, 1.0)])
def test_no_step_of_a_warm_up_learns_nothing(warmup: int, first: float) -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=warmup)
    found = [learning_rate(config, step, 100) for step in range(5)]
    assert found[0] == first
    assert min(found) > 0
    assert found[4] == 1


def test_what_texts_tell_of_a_pair_is_learned_beside_stage_1_which_stays() -> None:
    system, rows, module = built()
    batch = system.collate(rows)
    module.phase = "writer"
    _, told = module._told(batch)
    assert torch.equal(module.asked(batch)[1].user_BF, told.user_BF)  # nothing is learned yet
    sum(term.sum for term in system.loss(module, batch).values()).backward()
    user_B, item_B = module.pairs.known("user", batch.user_B), module.pairs.known("item", batch.item_B)
    for name, index_B in (("user", user_B), ("item", item_B)):
        moved = set(module.own[name].weight.grad.abs().sum(1).nonzero()[:, 0].tolist())
        assert moved == {1 + index for index in index_B.tolist() if index >= 0}  # not that of strangers
    assert module.pairs.table_user.weight.grad is None
    clusters = module.clusters(batch)
    with torch.no_grad():
        module.own["user"].weight[1:] += 1
    _, asked = module.asked(batch)
    torch.testing.assert_close(asked.user_BF - told.user_BF, (user_B >= 0)[:, None].expand_as(told.user_BF).float())
    assert torch.equal(module.clusters(batch), clusters)


@torch.no_grad()
def test_words_of_a_text_are_told_by_its_latent_in_any_order() -> None:
    system, rows, module = built(words=4, words_weight=0.5)
    assert system.vocabulary is not None
    known = system.vocabulary.words
    rows = take(rows, [0, 1, 2]) | {"text": np.array(["is the is", "the is is", f"nobody {known[3]}"], object)}
    rows |= {name: np.asarray(rows[name])[[0, 0, 2]] for name in ("user", "item", "rating")}
    batch = system.collate(rows)
    module.phase = VAE
    told_BW = module.pairs.word_scores(module.pairs(batch.user_B, batch.item_B).mean_BZ).log_softmax(1)
    # A word that is not among the most frequent counts as any other such word.
    place = {word: number for number, word in enumerate(known)}
    wanted = [
        [place["is"], place["is"], place["the"]],
        [place["is"], place["is"], place["the"]],
        [place["<unknown>"], 3],
    ]
    nll_B = torch.stack([-told_BW[row, words].sum() for row, words in enumerate(wanted)])
    term = system.loss(module, batch)["word_ce"]
    torch.testing.assert_close(module(batch).word_nll_B, nll_B)
    torch.testing.assert_close(term.sum, nll_B.sum())
    assert (term.count, term.weight) == (8, 0.5)
    assert system.counts(module, batch) == {"rating_ce": 3.0, "word_ce": 8.0}


def test_latents_tell_no_words_unless_they_are_asked_to() -> None:
    system, rows, module = built()
    assert system.vocabulary is None
    assert "sentence_words" not in GaVaMoE.table_names(system.config)
    module.phase = MIXTURE
    assert set(system.loss(module, system.collate(rows))) == {"rating_ce", "kl"}
    assert not [name for name in module.state_dict() if "word" in name]


def test_words_tell_clusters_of_users_who_rate_alike() -> None:
    """Two groups of users rate all alike and write in words of their own: latents with words tell them apart."""
    rng = np.random.default_rng(0)
    users, items, rows = 20, 10, 400
    user_B, item_B = rng.integers(0, users, rows), rng.integers(0, items, rows)
    columns = {
        "record": np.arange(rows), "user": user_B, "item": item_B, "rating": rng.choice([4.0, 5.0], rows),
        "text": np.array([["warm round deep", "bright thin sharp"][user % 2] for user in user_B], object),
        "feature": np.full(rows, "sound", object), "opinion": np.full(rows, "good", object),
    }  # fmt: skip
    _, tables = GaVaMoE.sample(4, rng)
    words = "warm round deep bright thin sharp".split()
    tables |= {
        "user_count": np.full(users, 20), "item_count": np.full(items, 40), "sentence_words": as_table(words),
    }  # fmt: skip
    apart = {}
    for most in (0, 6):
        pairs = {"words": most, "latent": 4, "embedding": 8, "layers": 1, "heads": 2, "dropout": 0.0}
        language = {"width": 8, "layers": 1, "heads": 1, "hidden": 8}
        system = GaVaMoE(GaVaMoEConfig.model_validate({"pairs": pairs, "language": language}), tables)
        module = system.model()
        module.phase = VAE
        optimiser = torch.optim.Adam(module.pairs.parameters(), 0.01)
        batch = system.collate(columns)
        for _ in range(60):
            optimiser.zero_grad()
            total = sum(term.weight * term.mean for term in system.loss(module, batch).values())
            total.backward()
            optimiser.step()
        with torch.no_grad():
            mean_BZ = module.eval().pairs(batch.user_B, batch.item_B).mean_BZ.numpy()
        found = fitted(mean_BZ, 2, 0).predict(mean_BZ.astype(np.float64))
        same = (found == user_B % 2).mean()
        apart[most] = max(same, 1 - same)
    assert apart[6] == 1.0
    assert apart[0] < 0.8
