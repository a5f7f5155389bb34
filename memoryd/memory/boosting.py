"""Raise and lower the scores of a ranking by what its documents say."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from memoryd.documents.boosts import Boost, FilterBoost, apply_boosts, value_of
from memoryd.documents.types import Collection
from memoryd.storage.database import Connection
from memoryd.storage.documents import find_documents, find_passing
from memoryd.vectors.rankings import Scores


async def boost(
    connection: Connection,
    collection: Collection,
    boosts: Sequence[Boost],
    documents: Sequence[int],
    scores: Scores,
) -> Scores:
    """Return `scores` (n,) of the documents of those numbers (n,) as the boosts change them."""
    found = await find_documents(connection, collection, documents)
    now = datetime.now(UTC)
    sums = np.zeros(len(documents))
    for each in boosts:
        if isinstance(each, FilterBoost):
            passing = await find_passing(connection, collection, each.wanted, documents)
            worth = [float(number in passing) for number in documents]
        else:
            worth = [value_of(each, found[number], now) for number in documents]
        sums += each.weight * np.array(worth)
    return apply_boosts(scores, sums)
