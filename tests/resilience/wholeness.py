"""Whether a database holds whole documents and nothing else, asked of Postgres itself."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg

FAULTS = {
    "documents without chunks": """
        SELECT d.external_id FROM {0}.documents d WHERE version > 0
        AND NOT EXISTS (SELECT 1 FROM {0}.chunks_1 c WHERE c.document_id = d.id)""",
    "chunks without a document": """
        SELECT c.id FROM {0}.chunks_1 c LEFT JOIN {0}.documents d ON d.id = c.document_id
        WHERE d.id IS NULL OR d.version = 0""",
    "chunks without a vector": """
        SELECT c.id FROM {0}.chunks_1 c LEFT JOIN {0}.vectors_1 v ON v.chunk_id = c.id
        WHERE v.chunk_id IS NULL OR v.document_id <> c.document_id""",
    "vectors without a chunk": """
        SELECT v.chunk_id FROM {0}.vectors_1 v LEFT JOIN {0}.chunks_1 c ON v.chunk_id = c.id
        WHERE c.id IS NULL""",
    "chunks at the same place": """
        SELECT document_id, position FROM {0}.chunks_1 GROUP BY 1, 2 HAVING count(*) > 1""",
    "chunks that are not what stands there": """
        SELECT c.id FROM {0}.chunks_1 c JOIN {0}.documents d ON d.id = c.document_id
        WHERE c.start_char IS NOT NULL
        AND c.text <> substr(d.text, c.start_char + 1, c.end_char - c.start_char)""",
    "documents whose chunks leave something out": """
        SELECT external_id FROM {0}.documents d JOIN (
          SELECT document_id, min(start_char) AS first, max(end_char) AS last, count(*) AS chunks,
            max(position) + 1 AS places, bool_or(gap) AS has_gap
          FROM (SELECT document_id, position, start_char, end_char, start_char > 1 +
              lag(end_char) OVER (PARTITION BY document_id ORDER BY position) AS gap
            FROM {0}.chunks_1) AS placed GROUP BY document_id
        ) AS c ON c.document_id = d.id
        WHERE first <> 0 OR last <> length(rtrim(d.text)) OR chunks <> places OR has_gap""",
    "documents that were accepted and that nothing stores": """
        SELECT external_id FROM {0}.documents d WHERE version = 0 AND error IS NULL
        AND NOT EXISTS (SELECT 1 FROM {0}.drafts w WHERE w.document_id = d.id)""",
    "drafts of jobs that ended, or of none": """
        SELECT w.id FROM {0}.drafts w LEFT JOIN memoryd.jobs j ON j.id = w.job_id
        WHERE j.id IS NULL OR j.finished_at IS NOT NULL AND w.outcome IS DISTINCT FROM 'failed'""",
    "jobs that say otherwise than they counted": """
        SELECT id FROM memoryd.jobs WHERE status = 'completed' AND (done <> total OR
        done <> (SELECT coalesce(sum(value::int), 0) FROM jsonb_each_text(counts)))""",
}
"""Queries of what must not be there, by what it is; chunks have one space between them."""

_GOING_ON = "SELECT count(*) FROM memoryd.jobs WHERE finished_at IS NULL"


async def find_faults(dsn: str, schema: str) -> dict[str, list[Any]]:
    """Return rows that must not be there, by what is wrong with them."""
    connection = await asyncpg.connect(dsn)
    try:
        found = {
            name: [tuple(row) for row in await connection.fetch(query.format(schema))]
            for name, query in FAULTS.items()
        }
    finally:
        await connection.close()
    return {name: rows for name, rows in found.items() if rows}


async def ended_jobs(dsn: str, within_s: float) -> Sequence[asyncpg.Record]:
    """Return id, status and counts of all jobs, once none of them goes on any more."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(within_s):
            while await connection.fetchval(_GOING_ON):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.1)
        return await connection.fetch("SELECT id, status, counts FROM memoryd.jobs ORDER BY id")
    finally:
        await connection.close()
