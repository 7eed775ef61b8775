"""HealthMoE's step beside its encoders alone."""

import pytest
import torch

from rec.benchmarks import healthmoe
from rec.data.prepared import Prepared
from rec.data.stream import to_columns
from rec.systems.healthmoe import HealthMoE
from rec.systems.healthmoe.model import HealthMoEModel


def test_the_limit_encodes_just_what_a_step_encodes(food: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    system = HealthMoE(healthmoe.CONFIG, food.tables(HealthMoE.table_names(healthmoe.CONFIG)))
    module = system.model().train()
    assert isinstance(module, HealthMoEModel)
    batch = system.collate(to_columns(food.rows("train").slice(0, 8)))
    torch.manual_seed(0)
    bare = healthmoe._bare(system, module, batch)
    encoded: dict[str, torch.Tensor] = {}
    for name in ("text", "image"):
        getattr(module, name).register_forward_pre_hook(lambda _, given, name=name: encoded.update({name: given[0]}))
    bare()
    asked: list[torch.Tensor] = []
    original = module.item_side
    monkeypatch.setattr(module, "item_side", lambda index, *rest: asked.append(index) or original(index, *rest))
    torch.manual_seed(0)
    found = dict(encoded)
    system.loss(module, batch)
    (index,) = asked
    torch.testing.assert_close(found["image"], module.tables["item_pixels"][index])
    texts = torch.cat([module.tables["item_tokens"][index], batch.text_BX])
    torch.testing.assert_close(found["text"], texts)
