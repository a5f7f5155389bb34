"""Killed at random moments of an ingest that two processes share: nothing is lost, halved, doubled.

MEMORYD_TEST_DOCUMENTS, MEMORYD_TEST_KILLS and MEMORYD_TEST_SEED make it longer or other.
"""

import asyncio
import os
import random
from collections import Counter
from functools import partial
from pathlib import Path

from fleet import LEASE_S, Member, fleet
from ingesting import DOCUMENTS, SCHEMA, Ingest, batches_of, list_ids, make_collection, note
from polling import until
from wholeness import ended_jobs, find_faults

COUNT = int(os.environ.get("MEMORYD_TEST_DOCUMENTS", "600"))
KILLS = int(os.environ.get("MEMORYD_TEST_KILLS", "4"))
SEED = int(os.environ.get("MEMORYD_TEST_SEED", "1"))
BATCH = 20


def has_posted(ingest: Ingest, count: int) -> bool:
    return ingest.posted >= count


async def kill_at_random(members: list[Member], ingest: Ingest, chance: random.Random) -> None:
    """Kill members while the ingest goes on; what it acknowledged must be listed each time."""
    moments = sorted(chance.sample(range(BATCH, COUNT * 9 // 10), KILLS))
    async with asyncio.TaskGroup() as starting:
        for moment in moments:
            await until(partial(has_posted, ingest, moment))
            member = chance.choice(members)
            await member.is_up.wait()
            await asyncio.sleep(chance.uniform(0, 0.15))
            await member.kill()
            starting.create_task(start_and_look(member, ingest))


async def start_and_look(member: Member, ingest: Ingest) -> None:
    acknowledged = set(ingest.acknowledged)
    await member.start()
    ids = await list_ids(member.client)
    assert acknowledged <= set(ids)
    assert len(ids) == len(set(ids))
    member.is_up.set()


async def test_memoryd_killed_at_random_keeps_whole_what_it_acknowledged(
    dsn: str, tmp_path: Path, tiny_models: Path
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - no secret
    batches = batches_of([note(number) for number in range(COUNT)], BATCH)
    async with fleet(2, dsn, tmp_path, tiny_models) as members:
        await make_collection(members[0].client)
        ingest = Ingest(members, batches, chance)
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_at_random(members, ingest, chance))
            group.create_task(ingest.run())
        listed = await list_ids(members[0].client)
        assert set(ingest.acknowledged) <= set(listed)
        assert ingest.lost_answers
        jobs = await ended_jobs(dsn, within_s=20 + 3 * LEASE_S + COUNT / 100)
        assert {job["status"] for job in jobs} <= {"completed"}
        assert await find_faults(dsn, SCHEMA) == {}
        assert sorted(await list_ids(members[1].client)) == sorted(listed)
        again = Ingest(members, batches, chance)
        await again.run()
        await ended_jobs(dsn, within_s=20 + COUNT / 100)
        assert Counter(await list_ids(members[0].client)) == Counter(f"n{i}" for i in range(COUNT))
        assert await find_faults(dsn, SCHEMA) == {}
        for external_id in chance.sample(listed, 20):
            shown = (await members[1].client.get(f"{DOCUMENTS}/{external_id}")).ok()
            assert (shown["version"], shown["status"]) == (1, "stored"), shown
        unchanged = [id_ for id_ in listed if again.acknowledged[id_] != "unchanged"]
        assert not unchanged
