"""What is true of generated visits: conditions, medications with their molecules, and which pairs are dangerous.

A medication's molecule is a ring with a group on it. The ring tells which conditions it treats, the group tells for
whom: a patient with a trait is given the medication of the ring whose group stands for that trait. Names and ids tell
nothing, descriptions tell of some medications what they treat, and of none that is rare. Beside these stand supportive
medications, among them salts, single atoms, molecules without a bond, and one without a molecule.
Letters: C conditions, R rings, T traits (the first is none), V medications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rec.seeds import generator

ORGANS = ("cardi", "nephr", "hepat", "gastr", "enter", "pneum", "dermat", "neur", "arthr", "oste", "my", "rhin",
          "ot", "ophthalm", "cyst", "col", "pancreat", "thyroid", "aden", "phleb")  # fmt: skip
PATHOLOGIES = ("itis", "osis", "opathy", "algia", "omegaly", "orrhagia", "osclerosis", "omalacia", "oma", "ospasm")
MOST_CONDITIONS = len(ORGANS) * len(PATHOLOGIES)
FORMS = ("acute {}", "chronic {}", "{}, unspecified")
TRAITS = (
    "",
    "renal impairment",
    "pregnancy",
    "advanced age",
    "penicillin allergy",
    "epilepsy",
    "haemophilia",
    "asthma",
)
GROUPS = ("C", "S(=O)(=O)N", "C(F)(F)F", "OCCN", "C#N", "C(=O)O", "[N+](=O)[O-]", "P(=O)(O)O")
"""The group of each trait, at position `a` of the ring."""
DECORATIONS = ("", "C", "CC", "OC", "Cl", "CO", "F", "CCO")
"""What stands at position `b`, and tells nothing."""
RINGS = (
    "c1cc({a})ccc1{b}", "c1cc({a})ncc1{b}", "c1nc({a})ncc1{b}", "c1nc({a})cnc1{b}", "c1cc({a})nnc1{b}",
    "c1sc({a})cc1{b}", "c1oc({a})cc1{b}", "c1[nH]c({a})cc1{b}", "c1nc({a})sc1{b}", "c1nc({a})oc1{b}",
    "c1nc({a})[nH]c1{b}", "c1nn(C)c({a})c1{b}", "C1CC({a})CCC1{b}", "C1CC({a})NCC1{b}", "C1NC({a})CNC1{b}",
    "C1OC({a})CNC1{b}", "C1CC({a})CC1{b}", "C1CC({a})NC1{b}", "C1CC({a})C1{b}", "C1CC({a})OC1{b}",
    "c1ccc2cc({a})ccc2c1{b}", "c1ccc2[nH]c({a})cc2c1{b}", "c1ccc2nc({a})ccc2c1{b}", "c1ccc2oc({a})cc2c1{b}",
    "c1ccc2sc({a})cc2c1{b}", "c1ccc2nc({a})sc2c1{b}", "c1ccc2nc({a})[nH]c2c1{b}", "c1nc2nc({a})ncc2nc1{b}",
    "O=C1CC({a})CCN1{b}", "C1CCC2CC({a})CCC2C1{b}", "c1ccc2c(c1)CC({a})C2{b}", "C1SC({a})CNC1{b}",
)  # fmt: skip
ANALGESIC, POTASSIUM, LITHIUM = "paracetamol-like analgesic", "potassium chloride", "lithium"
SUPPORT = (
    ("sodium chloride", ("[Na+].[Cl-]",), 0.85), (POTASSIUM, ("[K+].[Cl-]",), 0.08),
    ("water for injection", ("O",), 0.05), (LITHIUM, ("[Li+]",), 0.03), ("glucose", ("OCC1OC(O)C(O)C(O)C1O",), 0.06),
    ("insulin-like peptide", (), 0.05), ("magnesium sulfate", ("[Mg+2].[O-]S(=O)(=O)[O-]",), 0.05),
    (ANALGESIC, ("CC(=O)Nc1ccc(O)cc1", "CC(=O)NC"), 0.1),
)  # fmt: skip
"""Supportive medications: name, SMILES, share of visits."""
SEVERITIES = {"contraindicated": 0.97, "major": 0.85, "moderate": 0.4}
"""How often doctors avoid a pair of this severity."""
RING_PAIRS = 0.08
"""Share of pairs of rings whose medications are dangerous together."""
SUPPORT_RINGS = 3
"""Rings that are dangerous together with potassium, and with lithium."""
TOLD = 0.5
"""Share of common medications whose description tells what they treat ..."""
NOT_DESCRIBED = 0.04
"""... and of those that have none."""


@dataclass(frozen=True, slots=True)
class Pharmacy:
    """Conditions and medications; identical wherever it is made from the same numbers."""

    condition: tuple[str, ...]
    """(C,) names, one word each."""
    ring_C2: np.ndarray
    """Rings that treat a condition: the first choice and the second."""
    medication_RT: np.ndarray
    """The medication of a ring for a trait."""
    ring_V: np.ndarray
    """-1 of supportive ones."""
    group_V: np.ndarray
    """The trait it is for, -1 of supportive ones."""
    rare_V: np.ndarray
    """Whether it is rare in training; another of its ring is common."""
    id: tuple[str, ...]
    name: tuple[str, ...]
    description: tuple[str | None, ...]
    smiles: tuple[tuple[str, ...], ...]
    """(V,) none to three molecules each."""
    share_V: np.ndarray
    """Of visits that are given a supportive medication; 0 of others."""
    support_C: np.ndarray
    """The supportive medication that goes with what is done for a condition."""
    danger: tuple[tuple[int, int, str], ...]
    """Pairs of medications, the lower first, and their severity."""

    @property
    def treats_VC(self) -> np.ndarray:
        """Which conditions each medication treats, bool."""
        ring_RC = np.zeros((len(self.medication_RT), len(self.condition)), bool)
        ring_RC[self.ring_C2.T, np.arange(len(self.condition))] = True
        return np.where((self.ring_V >= 0)[:, None], ring_RC[np.maximum(self.ring_V, 0)], False)


def pharmacy(medications: int, conditions: int, traits: int, rare: float, seed: int) -> Pharmacy:
    """Return what is true.

    Args:
        medications: V, supportive ones included.
        conditions: C.
        traits: Traits of patients, that of none included.
        rare: Share of the medications with a ring that are rare in training, at most one of a ring.
        seed: Of everything drawn.
    """
    rng = generator(seed, "pharmacy")
    rings = max((medications - len(SUPPORT)) // traits, 2)
    extra = medications - len(SUPPORT) - rings * traits  # what fills up: one more for nobody's trait
    order = rng.permutation(rings * traits + extra + len(SUPPORT))
    medication_RT = order[: rings * traits].reshape(rings, traits)
    count = len(order)
    ring_V, group_V = np.full(count, -1), np.full(count, -1)
    ring_V[medication_RT] = np.arange(rings)[:, None]
    group_V[medication_RT] = np.arange(traits)
    names = list(_names(count, rng))
    condition = tuple(_conditions(conditions))
    ring_C2 = _treatments(conditions, rings, rng)
    rare_V = np.zeros(count, bool)
    if traits > 1:
        chosen = rng.permutation(rings)[: round(rare * rings * traits)]
        rare_V[medication_RT[chosen, rng.integers(1, traits, len(chosen))]] = True
    share_V = np.zeros(count)
    smiles: list[tuple[str, ...]] = [()] * count
    for place, medication in enumerate(order[rings * traits :].tolist()):
        kind = SUPPORT[place % len(SUPPORT)]
        smiles[medication], share_V[medication] = kind[1], kind[2] if place < len(SUPPORT) else 0.02
        names[medication] = _support_name(place)
    for ring, group in np.ndindex(rings, traits):
        smiles[medication_RT[ring, group]] = tuple(_molecules(ring, group, rng))
    described = tuple(_descriptions(names, condition, ring_C2, ring_V, group_V, rare_V, rng))
    support = [names.index(name) for name in (POTASSIUM, LITHIUM)]
    support_C = np.resize([names.index(name) for name, _, _ in SUPPORT], conditions)
    return Pharmacy(
        condition, ring_C2, medication_RT, ring_V, group_V, rare_V, _ids(count, rng), tuple(names), described,
        tuple(smiles), share_V, support_C, tuple(_dangers(medication_RT, support, rng)),
    )  # fmt: skip


def scaffold(ring: int) -> str:
    """Return the SMILES of a ring, or of two that are linked, with places {a} and {b}."""
    if ring < len(RINGS):
        return RINGS[ring]
    linked = [one for one in RINGS if not one.startswith("O")]
    first, second = divmod(ring - len(RINGS), len(linked))
    inner = linked[second].format(a="C", b="").replace("1", "5").replace("2", "6")
    return RINGS[first % len(RINGS)].replace("{b}", f"C{inner}{{b}}")


def _molecules(ring: int, group: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield one to three molecules of a ring and a group, which differ in what tells nothing; some are salts."""
    for decoration in rng.permutation(len(DECORATIONS))[: rng.choice([1, 2, 3], p=[0.15, 0.3, 0.55])]:
        salt = ".Cl" if rng.random() < 0.1 else ""
        yield scaffold(ring).format(a=GROUPS[group], b=DECORATIONS[decoration]) + salt


def _conditions(count: int) -> Iterator[str]:
    """Yield names of conditions: an organ and what is wrong with it, in one word."""
    words = [f"{organ}{wrong}" for wrong in PATHOLOGIES for organ in ORGANS]
    yield from (words[7 * place % MOST_CONDITIONS] for place in range(count))


def _treatments(conditions: int, rings: int, rng: np.random.Generator) -> np.ndarray:
    """Return two rings per condition, each ring the first choice of as many conditions as others."""
    first = np.resize(rng.permutation(rings), conditions)
    return np.stack([first, (first + rng.integers(1, rings, conditions)) % rings], 1)


def _ids(count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Return ids that look like the first four characters of ATC codes, and tell nothing."""
    letters, last = "ABCDGHJLMNPRSV", "ABCDEFGHX"
    every = [f"{a}{n:02d}{z}" for a in letters for n in range(1, 17) for z in last]
    return tuple(sorted(rng.permutation(every)[:count].tolist()))


def _names(count: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield names of medications that tell nothing, no two alike."""
    starts = ("ba", "ce", "do", "fi", "gu", "ka", "le", "mo", "ni", "pu", "ra", "se", "to", "vi", "xa", "zo")
    middles = ("lar", "met", "nis", "pro", "tax", "vel", "dor", "fen", "gli", "ril", "sar", "tol")
    ends = ("in", "ol", "ide", "am", "one", "ate", "ine", "um", "ex", "or")
    every = [f"{a}{b}{c}" for a in starts for b in middles for c in ends]
    yield from rng.permutation(every)[:count].tolist()


def _support_name(place: int) -> str:
    name, again = SUPPORT[place % len(SUPPORT)][0], place // len(SUPPORT)
    return f"{name} {again + 1}" if again else name


def _descriptions(
    name: Sequence[str],
    condition: tuple[str, ...],
    ring_C2: np.ndarray,
    ring_V: np.ndarray,
    group_V: np.ndarray,
    rare_V: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[str | None]:
    """Yield what describes each medication: its name, and what it treats in whom, or nothing more; None of a few."""
    drawn_V = rng.random(len(name))
    for v, what in enumerate(name):
        treated = [condition[c] for c in np.flatnonzero((ring_C2 == ring_V[v]).any(1))]
        whom = f" in {TRAITS[group_V[v]]}" if group_V[v] > 0 else ""
        if ring_V[v] < 0:
            yield f"{what}: supportive treatment"
        elif not rare_V[v] and drawn_V[v] < TOLD and treated:
            yield f"{what}: indicated for {' and '.join(treated)}{whom}"
        else:
            yield f"{what}: see its label" if rare_V[v] or drawn_V[v] < 1 - NOT_DESCRIBED else None


def _dangers(medication_RT: np.ndarray, support: list[int], rng: np.random.Generator) -> Iterator[tuple[int, int, str]]:
    """Yield dangerous pairs: all medications of one ring with all of another, or with a supportive one."""
    rings = len(medication_RT)
    first, second = np.triu_indices(rings, 1)
    chosen = rng.permutation(len(first))[: max(1, round(RING_PAIRS * len(first)))]
    for pair in np.sort(chosen).tolist():
        severity = str(rng.choice(list(SEVERITIES), p=[0.2, 0.5, 0.3]))
        for a in medication_RT[first[pair]].tolist():
            for b in medication_RT[second[pair]].tolist():
                yield min(a, b), max(a, b), severity
    for a in support:
        for ring in rng.permutation(rings)[:SUPPORT_RINGS].tolist():
            yield from ((min(a, b), max(a, b), "moderate") for b in medication_RT[ring].tolist())
