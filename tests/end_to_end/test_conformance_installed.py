"""The conformance tests as users of the package get them: on a system of one's own, without this folder."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST = """
from rec.conformance import Conformance
from own_system import Mine

class TestMine(Conformance):
    system = Mine
    configs = [{"width": 8, "blocks": 1, "max_length": 10}]
"""
GOOD = """
from rec.systems.msmrec import MSMRec

class Mine(MSMRec):
    pass
"""
ODD_TERM = GOOD.replace(
    "    pass",
    """
    def loss(self, model, batch):
        from rec.terms import Term
        return {name: Term(term.sum, 0) for name, term in super().loss(model, batch).items()}
""",
)
ODD_EXPLANATION = GOOD.replace(
    "    pass",
    """
    def explain(self, module, batch, items):
        return [{**found, "score": found["score"] + 1} for found in super().explain(module, batch, items)]
""",
)


def run(folder: Path, system: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "own_system.py").write_text(system)
    (folder / "test_mine.py").write_text(TEST)
    where = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, "test_mine.py"]
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, check=False)


def test_a_good_system_passes_and_bad_ones_fail_with_their_values(tmp_path: Path) -> None:
    done = run(tmp_path, GOOD)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize(
    ("system", "test", "told"),
    [
        (ODD_TERM, "test_every_loss_term_is_a_finite_sum_over_a_positive_count", "assert 0.0 > 0"),
        (ODD_EXPLANATION, "test_an_explanation_adds_up_to_the_score", " == "),
    ],
)
def test_a_bad_system_fails_with_the_values(tmp_path: Path, system: str, test: str, told: str) -> None:
    done = run(tmp_path, system, "-k", test)
    assert done.returncode == 1, done.stdout
    assert test in done.stdout
    assert told in done.stdout


def test_without_pytest_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['pytest'] = None; import rec.conformance"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("which is not installed: pip install pytest")
