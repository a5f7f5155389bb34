"""One task for all who want the same thing at the same time, and jobs that wait for one."""

import asyncio

import pytest
from polling import until

from memoryd.memory.model_jobs import ModelJob, ModelJobs
from memoryd.models.downloads import Progress
from memoryd.models.single_flight import SingleFlight


class Work:
    """Count its starts, end when it is let, and take its time where it is canceled."""

    def __init__(self) -> None:
        self.starts = 0
        self.gate = asyncio.Event()
        self.canceled_gate = asyncio.Event()

    async def start(self, _tell: Progress) -> int:
        """Return which start this was."""
        self.starts += 1
        number = self.starts
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await self.canceled_gate.wait()
            raise
        return number


async def test_all_who_want_the_same_share_one_task() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("key", work.start, None)) for _ in range(3)]
    await until(lambda: work.starts > 0)
    callers[0].cancel()
    work.gate.set()
    assert await asyncio.gather(*callers[1:]) == [1, 1]
    assert work.starts == 1


async def test_who_comes_while_a_canceled_task_ends_gets_a_task_of_its_own() -> None:
    flights: SingleFlight[int] = SingleFlight()
    work = Work()
    first = asyncio.create_task(flights.run("key", work.start, None))
    await until(lambda: work.starts == 1)
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.run("key", work.start, None))
    await asyncio.sleep(0)
    work.canceled_gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    third = asyncio.create_task(flights.run("key", work.start, None))
    await asyncio.sleep(0)  # the end of the first has taken nothing from those who came after
    work.gate.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(second, third) == [2, 2]


async def test_a_job_that_is_stopped_has_ended() -> None:
    jobs = ModelJobs()
    began = asyncio.Event()

    async def wait(_tell: Progress) -> None:
        began.set()
        await asyncio.Event().wait()

    job: ModelJob = jobs.start("tiny", wait)
    await began.wait()
    await jobs.stop()
    assert (job.has_ended, job.error) == (True, "stopped")
