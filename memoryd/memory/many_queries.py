"""Several questions put to a collection at once."""

from collections.abc import Sequence

from memoryd.documents.types import Collection
from memoryd.memory.search import Query, Result, search
from memoryd.memory.state import Memory


async def search_chunks(
    memory: Memory,
    collection: Collection,
    texts: Sequence[str],
    *,
    limit: int,
    score_threshold: float | None = None,
) -> list[Result]:
    """Return up to `limit` chunks that are nearest to any of `texts`, nearest first.

    Each is a result of its own, and stands where the text that it is nearest to puts it: cosines of
    one model can be compared. Raises what `search` raises.
    """
    best: dict[str, Result] = {}
    for text in texts:
        query = Query(text=text, limit=limit, score_threshold=score_threshold, group_size=None)
        for result in (await search(memory, collection, query)).results:
            chunk_id = result.chunks[0].chunk.id
            if chunk_id not in best or result.score > best[chunk_id].score:
                best[chunk_id] = result
    return sorted(best.values(), key=lambda result: -result.score)[:limit]
