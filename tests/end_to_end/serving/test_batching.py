import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rec.serving.batching import Batcher, Busy, Late


def batcher(work, **changes) -> Batcher:
    return Batcher(work, **{"max_batch_size": 8, "max_queued": 16, "latency_target_s": 2.0} | changes)


def test_requests_that_come_while_the_model_works_are_answered_together() -> None:
    sizes, gate = [], threading.Event()

    def work(items):
        sizes.append(len(items))
        gate.wait()
        return [item * 2 for item in items]

    async def main():
        one = batcher(work)
        tasks = [asyncio.create_task(one.ask(n, 5)) for n in range(12)]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(one.ask(n, 5)) for n in range(12, 16)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [n * 2 for n in range(16)]
    assert sizes == [8, 8]


def test_a_full_queue_refuses_and_says_when() -> None:
    gate = threading.Event()

    async def main():
        one = batcher(lambda items: (gate.wait(), items)[1], max_queued=3, max_batch_size=2)
        tasks = [asyncio.create_task(one.ask(0, 5))]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(one.ask(n, 5)) for n in range(1, 4)]
        await asyncio.sleep(0.02)
        with pytest.raises(Busy) as refused:
            await one.ask(9, 5)
        gate.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3]
        assert await one.ask(9, 5) == 9
        return refused.value

    assert asyncio.run(main()).retry_s >= 1


def test_a_request_whose_time_is_up_fails_alone_and_is_not_worked_on() -> None:
    worked = []

    def work(items):
        worked.extend(items)
        time.sleep(0.1)
        return items

    async def main():
        one = batcher(work, max_batch_size=1)
        first = asyncio.create_task(one.ask("first", 5))
        await asyncio.sleep(0.01)
        late, last = asyncio.create_task(one.ask("late", 0.03)), asyncio.create_task(one.ask("last", 5))
        with pytest.raises(Late, match="no answer within 30 ms"):
            await late
        return await first, await last

    assert asyncio.run(main()) == ("first", "last")
    assert worked == ["first", "last"]


def test_an_error_reaches_only_the_request_that_causes_it() -> None:
    sizes = []

    def work(items):
        sizes.append(len(items))
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    async def main():
        one = batcher(work)
        asked = (one.ask("a", 5), one.ask("bad", 5), one.ask_all(["b", "bad"], 5), one.ask_all(["c", "d"], 5))
        return await asyncio.gather(*asked, return_exceptions=True), await one.ask("e", 5)

    (a, bad, half, whole), after = asyncio.run(main())
    assert (a, whole, after) == ("A", ["C", "D"], "E")
    assert isinstance(bad, ValueError)
    assert isinstance(half, ValueError)
    assert sizes[0] == 6
    assert max(sizes[1:]) <= 3  # halves


def test_items_of_one_request_share_passes_with_others_and_come_back_in_order() -> None:
    sizes = []

    def work(items):
        sizes.append(len(items))
        return [item * 2 for item in items]

    async def main():
        one = batcher(work)
        return await asyncio.gather(one.ask_all(range(10), 5), one.ask(10, 5), one.ask_all(range(11, 14), 5))

    many, single, few = asyncio.run(main())
    assert [*many, single, *few] == [n * 2 for n in range(14)]
    assert sizes == [8, 6]


def test_batchers_that_share_a_thread_never_work_at_once() -> None:
    thread, busy, seen = ThreadPoolExecutor(1), threading.Lock(), []

    def work(items):
        seen.append(busy.acquire(blocking=False))
        time.sleep(0.005)
        busy.release()
        return items

    async def main():
        both = [batcher(work, thread=thread, max_batch_size=1) for _ in range(2)]
        return await asyncio.gather(*(one.ask(n, 5) for n in range(5) for one in both))

    assert asyncio.run(main()) == [n for n in range(5) for _ in range(2)]
    assert seen == [True] * 10


def test_batches_shrink_to_keep_the_latency_target_and_grow_back() -> None:
    cost_s = [0.004]

    def work(items):
        time.sleep(cost_s[0] * len(items))
        return items

    async def main():
        one = batcher(work, max_batch_size=32, max_queued=1000, latency_target_s=0.04)
        await asyncio.gather(*(one.ask(n, 60) for n in range(300)))
        slow = one.limit
        cost_s[0] = 0.0
        await asyncio.gather(*(one.ask(n, 60) for n in range(900)))
        return slow, one.limit

    slow, fast = asyncio.run(main())
    assert slow <= 0.02 / 0.004 * 1.3  # half of the target, at 4 ms a request
    assert fast > 2 * slow


def test_batches_stay_large_where_even_one_request_is_slow() -> None:
    def work(items):
        time.sleep(0.03)  # a writer's pass: the same for any size
        return items

    async def main():
        one = batcher(work, max_batch_size=32, max_queued=1000, latency_target_s=0.04)

        async def client(number: int) -> None:
            for _ in range(12):
                await one.ask(number, 60)

        started_s = time.perf_counter()
        await asyncio.gather(*(client(number) for number in range(32)))
        return one.limit, time.perf_counter() - started_s

    limit, seconds = asyncio.run(main())
    assert limit == 32
    assert seconds < 384 / 3 * 0.03  # three times as fast as one by one, the time to find out included


def test_a_pass_is_timed_without_the_wait_for_anothers() -> None:
    thread, seen = ThreadPoolExecutor(1), []

    async def main():
        slow = batcher(lambda items: (time.sleep(0.08), items)[1], thread=thread)
        fast = batcher(lambda items: items, thread=thread, observe=lambda size, seconds: seen.append(seconds))
        await asyncio.gather(slow.ask(0, 5), *(fast.ask(n, 5) for n in range(3)))

    asyncio.run(main())
    assert max(seen) < 0.02


def test_one_bad_row_costs_few_passes() -> None:
    sizes = []

    def work(items):
        sizes.append(len(items))
        if 13 in items:
            raise ValueError("bad")
        return items

    async def main():
        one = batcher(work, max_batch_size=64, max_queued=100)
        return await asyncio.gather(*(one.ask(n, 5) for n in range(64)), return_exceptions=True)

    found = asyncio.run(main())
    assert [n for n, answer in enumerate(found) if isinstance(answer, ValueError)] == [13]
    assert [answer for n, answer in enumerate(found) if n != 13] == [n for n in range(64) if n != 13]
    assert len(sizes) == 1 + 2 * 6


@pytest.mark.parametrize("wrong", [[], [1], [1, 2, 3, 4, 5], StopIteration(), GeneratorExit()])
def test_work_that_goes_wrong_never_stops_the_queue(wrong) -> None:
    """A future cannot carry a StopIteration, and another number of answers would be given to others."""

    def work(items):
        if "bad" not in items:
            return items
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong if len(items) > 1 else []

    async def main():
        one = batcher(work)
        first = await asyncio.gather(*(one.ask(n, 5) for n in ("a", "bad", "b")), return_exceptions=True)
        return first, await asyncio.wait_for(one.ask("c", 5), 5)

    (a, bad, b), after = asyncio.run(main())
    assert (a, b, after) == ("a", "b", "c")
    assert isinstance(bad, RuntimeError)
