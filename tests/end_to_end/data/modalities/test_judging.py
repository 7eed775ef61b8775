import asyncio
import subprocess
import sys
import time

import psutil
import pytest

from rec.data.modalities.entailment import Entailment
from rec.data.modalities.faithfulness import Checker, Faithfulness
from rec.data.modalities.judging import SupportJudge
from rec.data.modalities.rarity import Rarity
from rec.errors import DataError
from tests.support.films import HEAT

CHECKER = Checker(Rarity.learned([HEAT, ["Jaws", "A shark hunts swimmers."]]))
ITEMS = [([f"Neil McCauley robs bank {n}.", "A shark hunts."], [*HEAT, str(n)]) for n in range(50)]


def judged(judge: SupportJudge) -> list[list[Faithfulness]]:
    async def run() -> list[list[Faithfulness]]:
        async with judge:
            return await asyncio.gather(*(judge.judged(*item) for item in ITEMS))

    return asyncio.run(run())


def test_a_process_of_its_own_finds_the_same(classifier):
    model = Entailment(classifier("contradiction", "entailment"), 64)
    for checker in (CHECKER, Checker(CHECKER.rarity, model)):
        here = judged(SupportJudge(checker, apart=False))
        assert here == [checker.check(*item) for item in ITEMS]
        assert judged(SupportJudge(checker, apart=True)) == here
    assert len({found.score for one in here for found in one}) > 2


def test_the_loop_goes_on_while_texts_are_judged(classifier):
    """Judging in the loop would let nothing else run until all is judged."""
    model = Entailment(classifier("contradiction", "entailment"), 64)

    async def run() -> int:
        turns = 0
        async with SupportJudge(Checker(CHECKER.rarity, model), apart=True) as judge:
            asked = asyncio.ensure_future(judge.judged(["Sharks attack swimmers. " * 100] * 20, HEAT))
            while not asked.done():
                turns += 1
                await asyncio.sleep(0)
        return turns

    assert asyncio.run(run()) > 1000


def test_a_process_that_is_killed_is_told():
    async def run() -> None:
        async with SupportJudge(CHECKER, apart=True) as judge:
            await judge.judged(*ITEMS[0])
            judge.process.process.kill()
            await judge.judged(*ITEMS[0])

    with pytest.raises(DataError, match="the process that judges texts ended with status -9; answers so far are kept"):
        asyncio.run(run())


def test_what_is_wrong_with_texts_comes_back():
    async def run() -> None:
        async with SupportJudge(CHECKER, apart=True) as judge:
            await judge.judged([None], HEAT)  # type: ignore[list-item]

    with pytest.raises(AttributeError, match="strip"):
        asyncio.run(run())


def test_a_command_that_is_killed_leaves_no_process_behind():
    code = (
        "import asyncio\nfrom tests.end_to_end.data.modalities.test_judging import CHECKER, SupportJudge\n"
        "async def run():\n"
        "    async with SupportJudge(CHECKER, apart=True) as judge:\n"
        "        print(judge.process.process.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(run())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        pid = int(command.stdout.readline())
        assert psutil.pid_exists(pid)
        command.kill()
    end_s = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may be kept until somebody asks for its status."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
