"""The parts of the benchmark on writing, on a small model; how fast they are is not tested."""

import pytest
import torch
from torch import nn

from rec.benchmarks import writer
from rec.benchmarks.writer import BATCH, Ending, Sentences, decoding, passes, steps, training
from rec.nn.decoding import Decoding, decode

SMALL = {"width": 16, "heads": 2, "layers": 2, "hidden": 24}
GATED = {"experts": 3, "per_row": 2}
NAMES = [str(row) for row in range(BATCH)]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return Sentences()


def test_the_bare_passes_are_those_that_decoding_makes(sentences) -> None:
    model = sentences.writer(SMALL, GATED).eval()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    head: nn.Module = model.language.get_output_embeddings()
    head.register_forward_hook(lambda _, given, found: seen.append((given[0].clone(), found.clone())))
    asked, how = (sentences.prompt, sentences.pairs), Decoding(max_tokens=4)
    bare = passes(model, sentences.pairs, lambda: decode(model, asked, how, names=NAMES, end=-1))
    ours = list(seen)
    seen.clear()
    bare()
    assert len(ours) == len(seen) == 4
    for (state_RD, score_RW), (bare_RD, bare_RW) in zip(ours, seen, strict=True):
        torch.testing.assert_close(bare_RD, state_RD)
        torch.testing.assert_close(bare_RW, score_RW)


def test_texts_end_where_they_are_to(sentences) -> None:
    model = sentences.writer(SMALL, GATED).eval()
    ends = torch.arange(BATCH) % 5 + 1
    asked, how = (sentences.prompt, sentences.pairs), Decoding(max_tokens=8)
    found = [decode(Ending(model, ends), asked, how, names=NAMES, end=0, stays=stays) for stays in (False, True)]
    assert [len(text) for text in found[0]] == (ends - 1).tolist()
    assert found[0] == found[1]


def test_a_step_moves_gated_experts_and_the_dense_twin_alike(sentences) -> None:
    for keys, gated in ((SMALL, GATED), ({**SMALL, "hidden": 48}, {"experts": 0})):
        model = sentences.writer(keys, gated)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        steps(sentences, model)()
        still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
        assert still == []
    experts = sentences.writer(SMALL, GATED).layers[0].experts
    twin = sentences.writer({**SMALL, "hidden": 48}, {"experts": 0}).language.model.layers[0].mlp
    of_token = GATED["per_row"] * sum(p[0].numel() for p in experts.parameters())
    assert of_token == sum(p.numel() for p in twin.parameters())


def test_rows_say_what_is_measured_and_by_which_limit(sentences, monkeypatch) -> None:
    monkeypatch.setattr(writer, "REPEATS", 3)
    monkeypatch.setattr(writer, "TOKENS", 8)
    model = sentences.writer(SMALL, GATED).eval()
    rows = [*decoding("small", sentences, model), *training("small", sentences, SMALL, GATED)]
    assert [row.goal for row in rows] == pytest.approx([1.25, 1.25, None, None, 1 / 0.7, 1 / 0.7, None])
    wall, _, rate = rows[:3]
    assert rate.value == pytest.approx(writer.BATCH * writer.TOKENS / wall.value)
    assert rate.ratio == pytest.approx(1 / wall.ratio)
    assert all(row.value > 0 and row.limit > 0 and "small" in row.name for row in rows)
