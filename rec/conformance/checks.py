"""The tests that every system passes; see rec.conformance."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from rec.cluster.machines import Machine
from rec.cluster.plan import StepSample, plan
from rec.cluster.plan_page import page
from rec.conformance.cuts import comparable, difference, in_training, stepped
from rec.errors import RequestError
from rec.evaluation.measure import measure, metrics, teller
from rec.evaluation.records import joined, records_of
from rec.evaluation.tasks.ranking.answers import recommend_batch
from rec.json_text import json_text
from rec.nn.retrieval import Ask
from rec.systems.api import Phase, System
from rec.systems.capabilities import Decoding, Explainer, Ranker, Reporter, Writer
from rec.train.config import ParallelConfig, TrainConfig
from rec.train.feed import in_budgets, in_parts
from rec.train.phases import own_flags, select, stretches
from rec.train.ranks import OneRank, RankFeed


def take(rows: dict[str, Any], index: list[int]) -> dict[str, Any]:
    """Return some rows, in the given order."""
    return {name: [column[i] for i in index] for name, column in rows.items()}


Built = tuple[System[Any, Any], dict[str, Any]]
"""A system on its sample, and the rows."""


class Alone:
    """A module in this process, as measuring asks for it."""

    device = torch.device("cpu")

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        return value


def flat(values: Any) -> list[Any]:
    """Return nested lists as one."""
    return [v for value in values for v in (flat(value) if isinstance(value, list) else [value])]


def in_phase(module: Any, phase: Phase) -> Any:
    """Let the module know its phase, as the loop does."""
    module.phase = phase.name
    return module


class Conformance:
    """What every system must do. Subclass with `system` (a System class) and `configs` (tables of its Config)."""

    system: ClassVar[type[System[Any, Any]]]
    configs: ClassVar[list[dict[str, Any]]] = [{}]
    ROWS = 12
    """Rows of the sample."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every test with every config."""
        metafunc.parametrize("table", metafunc.cls.configs, ids=str)

    @pytest.fixture
    def built(self, table: dict[str, Any]) -> Built:
        config = self.system.Config.model_validate(table)
        rows, tables = self.system.sample(self.ROWS, np.random.default_rng(0))
        return self.system(config, tables), dict(rows)

    def measured(self, system: Any, module: Any, rows: dict[str, Any], parts: list[list[int]]) -> dict[str, Any]:
        """Return every metric over rows that are cut into batches."""
        batches = ((system.collate(take(rows, part)), True) for part in parts)
        return metrics(system, measure(system, Alone(module), batches))

    def still(self, system: Any, module: Any) -> None:
        """Let what is drawn in a step not depend on how its rows are cut, so that its terms can be compared."""

    def test_the_sample_has_the_declared_columns(self, built: Built) -> None:
        system, rows = built
        assert {c.name for c in system.columns} <= rows.keys()

    def test_one_seed_gives_one_model(self, built: Built) -> None:
        system, _ = built
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            states.append(system.model().state_dict())
        assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])

    def test_every_loss_term_is_a_finite_sum_over_a_positive_count(self, built: Built) -> None:
        system, rows = built
        for phase in system.phases():
            for term in system.loss(in_phase(system.model(), phase), system.collate(rows)).values():
                assert term.sum.shape == ()
                assert term.sum.isfinite()
                assert float(term.count) > 0

    def test_every_loss_term_has_words_where_some_have(self, built: Built) -> None:
        system, rows = built
        for phase in system.phases() if "loss_terms" in vars(type(system)) else ():
            for name in system.loss(in_phase(system.model(), phase), system.collate(rows)):
                assert any(fnmatch(name, glob) for glob in system.loss_terms), name

    def test_every_trained_parameter_moves(self, built: Built) -> None:
        system, rows = built
        torch.manual_seed(0)
        module = system.model().train()
        own = own_flags(module)
        for phase in system.phases():
            assert select(in_phase(module, phase), phase, own)
            if phase.before is not None:
                rows_feed = RankFeed(OneRank(), lambda split: iter([(system.collate(rows), True)]))
                phase.before(module.eval(), rows_feed)
                module.train()
            before = {name: p.detach().clone() for name, p in module.named_parameters()}
            trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
            optimizer = torch.optim.AdamW(trained.values(), lr=0.01, weight_decay=0)
            for _ in range(3):  # parts that start at zero open others only after a step
                terms = system.loss(module, system.collate(rows))
                counted = [t for name, t in terms.items() if any(fnmatch(name, glob) for glob in phase.terms)]
                optimizer.zero_grad()
                torch.stack([t.weight * t.mean for t in counted]).sum().backward()
                optimizer.step()
            moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
            assert moved == trained.keys()

    def test_a_run_on_two_nodes_can_be_planned(self, built: Built) -> None:
        system, rows = built
        there, found = [Machine("0", 1), Machine("1", 1)], stretches(system, TrainConfig())
        sample = StepSample([(system.collate(rows), True)])
        told = plan(system, found, lambda _: sample, ParallelConfig(workers=2), machines=there, nodes=[0, 1])
        counts = told.counts
        assert counts.total - counts.tables == sum(p.numel() for p in system.model().parameters())
        assert 0 < counts.active <= counts.total
        for stage in told.stages:
            assert 0 < stage.trained <= counts.total
            kinds = [kind for kind in stage.traffic.kinds if kind.endswith(("gradients", "weights"))]
            assert sum(stage.traffic.sent(0, kind) for kind in kinds) == 4 * stage.trained
            assert stage.memory.activations > 0
        assert page(told)

    def test_a_step_does_not_depend_on_how_its_rows_are_cut(self, built: Built) -> None:
        """Terms, gradients, buffers and the use of experts, in microbatches as in one batch, without dropout.

        Apart from terms that are drawn and those of `within_batch`. With 14 parts of 12 rows some count nowhere.
        """
        system, rows = built

        def make(phase: Phase, whole: Any) -> Any:
            module = in_training(system, phase, whole)
            self.still(system, module)
            return module

        for phase in system.phases():
            whole = system.collate(rows)
            compared, state = comparable(system, phase, whole, make)
            if compared is None:
                continue
            wanted = stepped(system, compared, make(phase, whole), [(whole, True)], 1)
            cuts = [list(in_parts(rows, parts)) for parts in (2, 5, 14)]
            if type(system).lengths is not System.lengths:
                most = 3 * int(max(system.lengths(rows)))
                cuts.append([(part, True) for part in in_budgets(rows, system.lengths(rows), most)])
            for cut in cuts:
                micro = [(system.collate(part), counts) for part, counts in cut]
                found = stepped(system, compared, make(phase, whole), micro, 1)
                told = difference(wanted, found, state=state)
                assert not told, f"phase {phase.name}, {len(cut)} microbatches: {told}"

    def test_weights_in_bfloat16_train_by_the_losses_of_float32(self, built: Built) -> None:
        """Every term's mean is within 5 % of float32's, or 0.05, and what is trained gets finite gradients."""
        system, rows = built
        for phase in system.phases():
            means = []
            for dtype in (torch.float32, torch.bfloat16):
                torch.manual_seed(5)
                module = in_phase(system.model().train().to(dtype), phase)
                torch.manual_seed(6)
                terms = system.loss(module, system.collate(rows))
                means.append({name: float(term.mean.detach()) for name, term in terms.items()})
                torch.stack([(t.weight * t.mean).float() for t in terms.values()]).sum().backward()
                grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
                assert grads
                assert all(grad.isfinite().all() for grad in grads.values())
            assert means[1] == pytest.approx(means[0], rel=0.05, abs=0.05)

    def test_metrics_do_not_depend_on_how_rows_are_cut(self, built: Built) -> None:
        system, rows = built
        module = system.model()
        whole = self.measured(system, module, rows, [list(range(self.ROWS))])
        parts = self.measured(system, module, rows, [[3, 1], [0], [2, *range(4, self.ROWS)]])
        assert whole == pytest.approx(parts, abs=1e-5, nan_ok=True)

    def test_measuring_twice_gives_the_same(self, built: Built) -> None:
        system, rows = built
        module = system.model()
        parts = [list(range(self.ROWS))]
        assert self.measured(system, module, rows, parts) == self.measured(system, module, rows, parts)

    def test_metrics_have_directions_and_the_headline_is_one(self, built: Built) -> None:
        system, rows = built
        found = self.measured(system, system.model(), rows, [list(range(self.ROWS))])
        for task in system.tasks:
            assert task.headline in task.directions
            assert set(task.shown) - set(task.late) <= found.keys()
            assert set(task.directions) - set(task.late) <= found.keys()

    def test_columns_that_answers_carry_hold_one_value_of_each_example(self, built: Built) -> None:
        system, rows = built
        module = system.model().eval()
        with torch.inference_mode():
            told = teller(system, module)(system.collate(rows))
        wanted = system.told_columns if isinstance(system, Reporter) else ()
        assert tuple(told) == tuple(wanted)
        assert all(len(records_of({name: value}, self.ROWS)[name]) == self.ROWS for name, value in told.items())

    def test_records_of_ranks_are_those_of_one(self, built: Built) -> None:
        system, rows = built
        module = system.model()
        whole = measure(system, Alone(module), iter([(system.collate(rows), True)]))
        few = [[0, 1, 2], [3, 4]]
        parts = [measure(system, Alone(module), iter([(system.collate(take(rows, part)), True)])) for part in few]
        counted = [(system.collate(take(rows, [0, 1])), True), (system.collate(take(rows, [0])), False)]
        stand_in = measure(system, Alone(module), iter(counted))
        for task in system.tasks:
            wanted = whole[task.name].slice(0, 5).select(parts[0][task.name].column_names)
            found = joined([part[task.name] for part in parts])
            assert len(stand_in[task.name]) == 2
            for name in wanted.column_names:
                one, other = wanted[name].to_pylist(), found[name].to_pylist()
                assert flat(one) == pytest.approx(flat(other), abs=1e-5, nan_ok=True), name

    def test_answers_are_json_and_do_not_depend_on_company(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Ranker):
            pytest.skip("ranks no catalogue")
        module = system.model().eval()
        with torch.inference_mode():
            together = recommend_batch(system, module, system.collate(rows))
            alone = [recommend_batch(system, module, system.collate(take(rows, [i])))[0] for i in range(self.ROWS)]
        assert len(together) == self.ROWS
        json_text(together)
        for a, b in zip(together, alone, strict=True):
            assert a.keys() == b.keys()
            assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)

    def test_a_writer_is_told_no_truth_but_what_it_tells(self, built: Built) -> None:
        """Texts are the same whatever the true text is, and the feature and the rating unless these are given."""
        system, rows = built
        if not isinstance(system, Writer):
            pytest.skip("writes no texts")
        given = set(system.truth_given())
        labels = [column.name for column in system.columns if column.label and column.name not in given]
        turned = take(rows, [*range(1, self.ROWS), 0])
        module, decoding = system.model().eval(), Decoding(max_tokens=8)
        both = [rows, rows | {name: turned[name] for name in labels}]
        with torch.inference_mode():
            told, other = (system.write(module, system.collate(each), decoding) for each in both)
        assert told == other

    def test_a_catalogue_changes_no_measurement(self, built: Built) -> None:
        system, rows = built
        module = system.model().eval()
        wanted = self.measured(system, module, rows, [list(range(self.ROWS))])
        with torch.inference_mode():
            system.freeze(module, {name: t.clone() for name, t in system.catalogue(module).items()})
        assert self.measured(system, module, rows, [list(range(self.ROWS))]) == pytest.approx(wanted, nan_ok=True)

    def test_scores_of_ranges_are_parts_of_all_scores(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Ranker):
            pytest.skip("ranks no catalogue")
        module = system.model().eval()
        with torch.inference_mode():
            states = system.states(module, system.collate(rows))
            items = len(system.static["item_count"])
            whole = system.scores(module, states, slice(0, items))
            parts = [system.scores(module, states, slice(*ends)) for ends in ((0, 7), (7, 8), (8, items))]
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)

    def test_candidates_and_inner_products_agree_with_scores(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Ranker):
            pytest.skip("ranks no catalogue")
        module = system.model().eval()
        with torch.inference_mode():
            vector_ID = system.item_vectors(module)
            if vector_ID is None:
                pytest.skip("scores are no inner products")
            states = system.states(module, system.collate(rows))
            whole = system.scores(module, states, slice(0, len(vector_ID)))
            item_BC = torch.tensor([[4, 9, 7]]).expand(self.ROWS, -1)
            found = system.candidate_scores(module, states, item_BC)
            if found is None:
                found = (system.queries(module, states) @ vector_ID.T).gather(1, item_BC)
        torch.testing.assert_close(found, whole.gather(1, item_BC), atol=1e-5, rtol=1e-5)

    def test_a_ranking_follows_what_each_request_asks(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Ranker):
            pytest.skip("ranks no catalogue")
        module, few = system.model().eval(), take(rows, [0, 1, 2])
        with torch.inference_mode():
            plain = recommend_batch(system, module, system.collate(few), [Ask(k=12)] * 3)
            best = plain[0]["items"]
            asks = [Ask(k=3, exclude=(best[0], best[2])), Ask(k=5, candidates=(4, 9, 7)), Ask(k=4)]
            found = recommend_batch(system, module, system.collate(few), asks)
        assert found[0]["items"] == [best[1], best[3], best[4]]
        assert sorted([*found[1]["items"], *(w["item"] for w in found[1].get("withheld", []))]) == [4, 7, 9]
        assert found[1]["scores"] == sorted(found[1]["scores"], reverse=True)
        assert found[2]["items"] == plain[2]["items"][:4]
        known = system.examples(system.collate(few)).known
        for row, answer in enumerate(plain):
            assert not set(answer["items"]) & set(known[1][known[0] == row].tolist())

    def test_an_explanation_adds_up_to_the_score(self, built: Built) -> None:
        system, rows = built
        if not (isinstance(system, Explainer) and isinstance(system, Ranker)):
            pytest.skip("does not explain")
        module = system.model().eval()
        for parameter in module.parameters():  # projectors start at zero, which would hide their parts
            torch.nn.init.normal_(parameter, std=0.1)
        few = take(rows, [0, 1])
        with torch.inference_mode():
            best = recommend_batch(system, module, system.collate(few), [Ask(k=1)] * 2)
            try:
                found = system.explain(module, system.collate(few), [a["items"][0] for a in best])
            except RequestError:
                pytest.skip("does not explain this")
        for answer, explained in zip(best, found, strict=True):
            assert explained["score"] == pytest.approx(answer["scores"][0], abs=1e-4)
            assert sum(explained["parts"]) == pytest.approx(explained["score"], abs=1e-4)
            told = [share for share in explained.get("modalities", ()) if share is not None]  # None: it is not there
            assert all(0 <= share <= 1 + 1e-5 for share in told)

    def test_a_text_does_not_depend_on_its_company_and_is_the_sum_of_its_pieces(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Writer):
            pytest.skip("does not write")
        module, heard = system.model().eval(), []
        every: tuple[dict[str, Any], ...] = (
            {},
            {"temperature": 1.0, "top_p": 0.9},
            {"beams": 3, "length_penalty": 0.5},
        )
        for asked in every:
            decoding = Decoding(max_tokens=6, **{name: asked[name] for name in asked if name in system.ways})
            with torch.inference_mode():
                batch = system.collate(rows)
                texts = system.write(module, batch, decoding, heard=lambda pieces: heard.append(list(pieces)))
                few = system.write(module, system.collate(take(rows, [7, 2, 5])), decoding)
                system.write(module, batch, decoding, all_done=lambda _: True)  # ends at once where all others have
            assert few == [texts[row] for row in (7, 2, 5)]
            assert ["".join(pieces).strip() for pieces in zip(*heard, strict=True)] == [text.strip() for text in texts]
            heard.clear()

    def test_a_text_is_traced_token_by_token(self, built: Built) -> None:
        system, rows = built
        if not isinstance(system, Writer):
            pytest.skip("does not write")
        module = system.model().eval()
        with torch.inference_mode():
            batch = system.collate(rows)
            texts = system.write(module, batch, Decoding(max_tokens=6))
            found = system.trace(module, batch, texts)
            if not found:
                pytest.skip("tells no tokens")
            (alone,) = system.trace(module, system.collate(take(rows, [3])), texts[3:4])
        assert len(found) == len(texts)
        assert [token.text for token in alone.tokens] == [token.text for token in found[3].tokens]
        for text, traced in zip(texts, found, strict=True):
            told = "".join(token.text for token in traced.tokens)
            assert told.replace(" ", "").startswith(text.replace(" ", ""))
            for token in traced.tokens:
                assert all(weight > 0 for experts in token.experts.values() for weight in experts.values())

    def test_phases_name_parameters_and_terms_that_exist(self, built: Built) -> None:
        system, rows = built
        module = system.model()
        names = [name for name, _ in module.named_parameters()]
        for phase in system.phases():
            terms = system.loss(in_phase(module, phase), system.collate(rows))
            assert all(any(fnmatch(n, glob) for n in names) for glob in phase.trains)
            assert all(any(fnmatch(n, glob) for n in terms) for glob in phase.terms)
