"""NLA-MMR's layers against slow versions of the same, and what must not matter to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from rec.data import molecules as featured
from rec.systems.nlammr import NLAMMR
from rec.systems.nlammr.config import NLAMMRConfig
from rec.systems.nlammr.molecules import GIN, Graph, MedicationMolecules, molecules_of
from rec.systems.nlammr.samples import MOLECULES, V
from tests.conformance import take
from tests.conftest import SHARED
from tests.support.nlammr import ROWS, SMALL, built, scores

PUBLISHED = SHARED / "medication" / "molecules"


@pytest.mark.parametrize("medications", [112, 121])
def test_the_published_sizes_have_the_published_number_of_parameters(medications: int) -> None:
    _, tables = NLAMMR.sample(ROWS, np.random.default_rng(0))
    tables |= {
        "medication_molecule_pairs": np.stack([np.arange(medications), np.arange(medications) % MOLECULES], 1),
        "text_all": np.zeros((1, 768), np.float32),
        "medication_text": np.zeros((medications, 768), np.float32),
        "medication_text_present": np.ones(medications, bool),
    }
    module = NLAMMR(NLAMMRConfig(), tables).model()
    parts = {
        "patients.project": 262_656,
        "medications.module.project": 279_040,
        "patients.sections": 590_592 - 196_864,
        "patients.earlier": 590_592 - 196_864,
        "patients.out": 196_864,
        "patients.fusion": 1_180_416,
        "medications.module.gin": 100_101,
    }
    found = {
        prefix: sum(p.numel() for name, p in module.named_parameters() if name.startswith(f"{prefix}."))
        for prefix in parts
    }
    assert found == parts
    assert sum(p.numel() for p in module.parameters()) == sum(parts.values()) == 2_806_533 == 3_003_397 - 196_864


def test_the_weighted_loss_is_that_of_the_published_log() -> None:
    alpha = NLAMMRConfig().alpha
    for bce, margin, total in ((0.26742, 6.08485, 0.55829), (0.28283, 6.63895, 0.60064)):
        assert alpha * bce + (1 - alpha) * margin == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    ("file", "count", "atoms", "bonds", "different"),
    [
        ("nlammr_mimic3", 269, 6_782, 14_456, 231),
        ("nlammr_mimic4", 316, 8_138, 17_442, 222),
        ("safedrug_master", 269, 6_871, 14_650, None),
    ],
)
def test_published_molecules_have_the_published_sizes(
    file: str, count: int, atoms: int, bonds: int, different: int | None
) -> None:
    found = published(file)
    one = molecules_of(found)
    assert (one.count, len(one.atom_A9), one.bond_2E.shape[1]) == (count, atoms, bonds)
    assert molecules_of(found, dedupe=True).count == (different or molecules_of(found, dedupe=True).count)


def published(file: str) -> dict[str, np.ndarray]:
    """Return the tables of the published molecules of a vocabulary."""
    path: Path = PUBLISHED / f"{file}_atc3_to_smiles.json"
    if not path.exists():
        pytest.skip("needs ../shared/data/medication, which is not part of the project")
    smiles = json.loads(path.read_text())
    vocabulary = PUBLISHED.parent / "ddi" / f"{file}_med_vocab.json"
    known = list(json.loads(vocabulary.read_text()))
    pairs = [(place, one) for place, code in enumerate(known) for one in smiles[code]]
    graphs = featured.graphs([one for _, one in pairs])
    return {
        "molecule_atoms": graphs.atoms,
        "molecule_atom_owner": graphs.owner,
        "molecule_bonds": graphs.bonds,
        "molecule_bond_features": graphs.bond_features,
        "medication_molecule_pairs": np.array([(place, number) for number, (place, _) in enumerate(pairs)]),
    }


def slow_gin(gin: GIN, molecules: MedicationMolecules) -> Tensor:
    """Return the states of atoms in evaluation, atom by atom and bond by bond, from the formulas."""
    start_T = np.cumsum((0, *featured.ATOM_TABLES[:-1]))
    state = [sum(gin.atom[start + k] for start, k in zip(start_T, atom, strict=True)) for atom in molecules.atom_A9]
    start_T = np.cumsum((0, *featured.BOND_TABLES[:-1]))
    for number, layer in enumerate(gin.layers):
        near = [torch.zeros_like(one) for one in state]
        for (source, to), bond in zip(molecules.bond_2E.T, molecules.bond_E3, strict=True):
            edge = sum(layer.bond[start + k] for start, k in zip(start_T, bond, strict=True))
            near[to] = near[to] + torch.clamp(state[source] + edge, min=0)
        new = []
        for own, other in zip(state, near, strict=True):
            x = layer.up.weight @ ((1 + layer.eps) * own + other) + layer.up.bias
            x = torch.clamp(_normal(x, layer.inner_norm), min=0)
            x = _normal(layer.down.weight @ x + layer.down.bias, layer.norm)
            new.append(x if number == len(gin.layers) - 1 else torch.clamp(x, min=0))
        state = new
    return torch.stack(state)


def _normal(x: Tensor, norm: Any) -> Tensor:
    return (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias


def test_the_network_over_molecules_is_that_of_its_formulas() -> None:
    system, _, module = built()
    gin, molecules = module.medications.module.gin, molecules_of(system.static)
    graph = module.medications.module.graph
    torch.testing.assert_close(gin(graph), slow_gin(gin, molecules), atol=1e-5, rtol=1e-5)


def test_messages_have_the_gradient_of_plain_operations() -> None:
    system, _, module = built()
    branch = module.medications.module
    gin, graph = branch.gin.double(), branch.graph.double()
    parameters = list(gin.parameters())
    weight = torch.randn(len(graph.atom_A), 6, dtype=torch.float64)
    wanted = torch.autograd.grad((slow_gin(gin, molecules_of(system.static)) * weight).sum(), parameters)
    found = torch.autograd.grad((gin(graph) * weight).sum(), parameters)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_the_order_of_atoms_does_not_matter_and_a_single_atom_is_finite() -> None:
    system, _, module = built()
    branch, tables = module.medications.module, dict(system.static)
    wanted = branch.graph.averages(branch.gin(branch.graph))
    owner_A = tables["molecule_atom_owner"]
    order_A = np.concatenate([np.flatnonzero(owner_A == m)[::-1] for m in range(MOLECULES)])
    tables["molecule_atoms"] = tables["molecule_atoms"][order_A]
    tables["molecule_bonds"] = np.argsort(order_A)[tables["molecule_bonds"]]
    graph = Graph(molecules_of(tables), V)
    torch.testing.assert_close(graph.averages(branch.gin(graph)), wanted, atol=1e-5, rtol=1e-5)
    alone = {**tables, "medication_molecule_pairs": np.array([[0, 0]])}  # the molecule of one atom, no bond
    graph = Graph(molecules_of(alone), V)
    for train in (False, True):
        made = graph.averages(branch.gin.train(train)(graph))
        assert made.isfinite().all()
        assert (made[1:] == 0).all()


def test_a_molecule_without_atoms_is_none_and_its_medication_has_the_learned_vector() -> None:
    system, rows, module = built()
    assert module.medications.module.no_structure is not None
    whole = dict(system.static)
    without = {"medication_molecule_pairs": np.concatenate([whole["medication_molecule_pairs"], [[V - 1, 99]]])}
    other, _, other_module = built(tables=without)
    torch.testing.assert_close(scores(other, other_module, rows), scores(system, module, rows))
    with torch.no_grad():
        module.train().eval().medications.module.no_structure += 1
    moved_V = (scores(system, module, rows) != scores(other, other_module, rows)).any(0)
    assert moved_V.tolist() == [False] * (V - 1) + [True]


def slow_scores(system: Any, module: Any, rows: Any) -> Tensor:
    """Return scores from the formulas of the specification, visit by visit, medication by medication."""
    batch, p, m = system.collate(rows), module.patients, module.medications.module

    def project(mlp: Any, x: Tensor) -> Tensor:
        y = gelu(mlp.first.weight @ x + mlp.first.bias)
        return mlp.second.weight @ y + mlp.second.bias + y

    def attend(layer: Any, query: Tensor, values: list[Tensor]) -> Tensor:
        q = layer.query.weight @ query + layer.query.bias
        keys = [layer.key.weight @ value + layer.key.bias for value in values]
        share = torch.softmax(torch.stack([q @ key for key in keys]) / len(q) ** 0.5, 0)
        return sum(a * value for a, value in zip(share, values, strict=True))

    atom_AG = slow_gin(m.gin, m_of := molecules_of(system.static))
    z_m = []
    for v in range(V):
        own = [k for held, k in m_of.pair_P2 if held == v]
        means = [atom_AG[torch.from_numpy(m_of.owner_A == k)].mean(0) for k in own]
        structure = torch.stack(means).mean(0) if means else m.no_structure
        z_m.append(project(m.project, torch.cat([module.text_VD[v], structure])))
    found = []
    for row in range(len(batch)):
        e_dps = batch.query_BD[row]
        c = attend(p.sections, e_dps, list(batch.section_BSD[row]))
        u = gelu(p.fusion.weight @ torch.cat([e_dps, c]) + p.fusion.bias)
        earlier = [h for h, there in zip(batch.earlier_BHD[row], batch.earlier_BH[row], strict=True) if there]
        r = p.out.weight @ attend(p.earlier, u, earlier) + p.out.bias if earlier else p.out.bias
        z_p = project(p.project, u) + r
        found.append(torch.stack([z_p @ z for z in z_m]))
    return torch.stack(found)


@pytest.mark.parametrize("history", [1, 2, 3])
def test_scores_are_those_of_the_formulas(history: int) -> None:
    system, rows, module = built({"history": history})
    with torch.no_grad():
        wanted = slow_scores(system, module, rows)
    torch.testing.assert_close(scores(system, module, rows), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gated", [False, True])
def test_a_first_visit_has_the_no_history_vector_whatever_the_padding_holds(gated: bool) -> None:
    system, rows, module = built({"history_gate": gated, "history": 2})
    texts = module.texts(system.collate(rows))
    first_B = ~texts.earlier_BH.any(1)
    assert first_B.any()
    assert not first_B.all()
    texts.earlier_BHD[~texts.earlier_BH] = torch.randn_like(texts.earlier_BHD[~texts.earlier_BH])
    texts.earlier_BHD.requires_grad_()
    weight_BH, added_BC = module.patients.history(texts.query_BD, texts)
    assert torch.equal(added_BC[first_B], module.patients.no_history.expand(int(first_B.sum()), -1))
    assert (weight_BH[~texts.earlier_BH] == 0).all()
    (gradient_BHD,) = torch.autograd.grad(added_BC.square().sum(), texts.earlier_BHD)
    assert (gradient_BHD[~texts.earlier_BH] == 0).all()
    assert (gradient_BHD[texts.earlier_BH] != 0).any()


@pytest.mark.parametrize(
    ("places", "most", "wanted"), [([4, 5, 9], 2, [5, 9]), ([4, 5], 1, [5]), ([4], 2, [4]), ([], 3, [])]
)
def test_history_is_the_last_visits_oldest_first(places: list[int], most: int, wanted: list[int]) -> None:
    system, rows, _ = built({"history": most})
    given = {"earlier": [places], "earlier_medications": [[[1]] * len(places)], "gap": [[float(p) for p in places]]}
    batch = system.collate({name: column[:1] for name, column in rows.items()} | given)
    table = torch.from_numpy(system.static["text_medications"])
    assert batch.earlier_BH[0].tolist() == [slot < len(wanted) for slot in range(most)]
    assert torch.equal(batch.earlier_BHD[0, : len(wanted)], table[wanted])
    assert batch.gap_BH[0, : len(wanted)].tolist() == wanted
    assert batch.before_B.tolist() == [len(places)]


def test_history_of_a_row_is_what_was_given_at_its_last_visits() -> None:
    system, rows, _ = built({"history": 2})
    batch, table = system.collate(rows), system.static["text_medications"]
    for row, places in enumerate(rows["earlier"]):
        kept = list(places)[-2:]
        assert batch.earlier_BH[row].tolist() == [True] * len(kept) + [False] * (2 - len(kept))
        np.testing.assert_array_equal(batch.earlier_BHD[row, : len(kept)].numpy(), table[kept])
        assert batch.before_B[row] == len(places)


def test_what_a_visit_was_given_changes_its_label_alone_and_scores_of_the_next_visit() -> None:
    system, rows, module = built()
    given = int(np.flatnonzero(np.array([len(part) for part in rows["earlier"]]))[0])
    here, place = 0, int(rows["earlier"][given][-1])
    rows["visit"][here] = place
    rng = np.random.default_rng(5)
    other = {
        "text_medications": np.array(system.static["text_medications"]),
        "text_all": system.static["text_all"],
    }
    other["text_medications"][place] = rng.standard_normal(other["text_medications"].shape[1])
    changed, _, changed_module = built(tables=other)
    exchanged = {**rows, "medications": [np.sort(rng.permutation(V)[:3]) for _ in range(ROWS)]}
    before, after = scores(system, module, rows), scores(changed, changed_module, exchanged)
    assert torch.equal(before[here], after[here])
    assert not torch.equal(before[given], after[given])
    labels = [system.collate(one).label_BV for one in (rows, exchanged)]
    assert not torch.equal(*labels)


def test_a_permuted_vocabulary_permutes_scores() -> None:
    system, rows, module = built({"missing_text_mask": True})
    order_V = np.random.default_rng(2).permutation(V)
    place_V = np.argsort(order_V)
    pair_P2 = system.static["medication_molecule_pairs"].copy()
    pair_P2[:, 0] = place_V[pair_P2[:, 0]]
    names = ("medication_text", "medication_text_present")
    tables = {name: system.static[name][order_V] for name in names} | {"medication_molecule_pairs": pair_P2}
    other, _, other_module = built({"missing_text_mask": True}, tables)
    other_module.load_state_dict(module.state_dict())
    found = scores(other, other_module, rows)
    torch.testing.assert_close(found, scores(system, module, rows)[:, order_V], atol=1e-5, rtol=1e-5)


def test_the_order_of_a_medications_molecules_does_not_matter() -> None:
    system, rows, module = built()
    tables = {"medication_molecule_pairs": system.static["medication_molecule_pairs"][::-1].copy()}
    other, _, other_module = built(tables=tables)
    torch.testing.assert_close(scores(other, other_module, rows), scores(system, module, rows), atol=1e-5, rtol=1e-5)


def test_equal_molecules_encoded_once_give_the_same_scores() -> None:
    system, rows, module = built()
    other, _, other_module = built({"dedupe_molecules": True})
    graphs = [len(one.medications.module.graph.size_M) for one in (module, other_module)]
    assert graphs[1] < graphs[0]
    torch.testing.assert_close(scores(other, other_module, rows), scores(system, module, rows), atol=1e-5, rtol=1e-5)


def test_sections_are_symptoms_diagnoses_procedures_and_equal_ones_are_what_is_joined() -> None:
    system, rows, module = built()
    batch, place_B = system.collate(rows), rows["visit"]
    for number, name in enumerate(("symptoms", "diagnoses", "procedures")):
        known_B = place_B >= 0
        np.testing.assert_array_equal(
            batch.section_BSD[:, number].numpy()[known_B], system.static[f"text_{name}"][place_B[known_B]]
        )
    texts = module.texts(batch)
    texts.section_BSD[:] = texts.section_BSD[:, :1]
    _, joined_BD = module.patients.joined_sections(texts)
    torch.testing.assert_close(joined_BD, texts.section_BSD[:, 0])


def test_medications_made_before_give_the_scores_of_those_made_anew() -> None:
    system, rows, module = built()
    plain = scores(system, module, rows)
    with torch.no_grad():
        system.freeze(module, {name: value.clone() for name, value in system.catalogue(module).items()})
    assert torch.equal(scores(system, module, rows), plain)
    alone = torch.cat([scores(system, module, take(rows, [row])) for row in range(ROWS)])
    torch.testing.assert_close(alone, plain, atol=1e-5, rtol=1e-5)


def test_sixteen_visits_are_learned_by_heart_from_text_alone() -> None:
    rows, tables = NLAMMR.sample(16, np.random.default_rng(4))
    rows = dict(rows) | {"visit": np.flatnonzero(tables["text_all_present"])[:16]}
    system = NLAMMR(NLAMMRConfig.model_validate(SMALL | {"width": 32, "ablate": "structure"}), tables)
    torch.manual_seed(0)
    module = system.model().train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    batch = system.collate(rows)
    for _ in range(150):
        optimizer.zero_grad()
        sum(term.weight * term.mean for term in system.loss(module, batch).values()).backward()
        optimizer.step()
    given = system.probabilities(module.eval(), batch) >= 0.5
    jaccard = (given & batch.label_BV).sum(1) / (given | batch.label_BV).sum(1)
    assert float(jaccard.mean()) > 0.97
