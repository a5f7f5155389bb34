"""Limits of what requests may ask, in one place: those of settings are in config."""

LINE_BYTES = 8 << 20
"""Of NDJSON, whose body has no limit as a whole."""
FORM_FIELD_BYTES = 512 << 10
"""Of a form's field that is no file."""
WAIT_S = 300
IDEMPOTENCY_KEY_CHARS = 255
ID_CHARS = 512
TITLE_CHARS = 10_000
MIME_TYPE_CHARS = 256
CHUNKS = 10_000
"""Of a document whose client makes them."""
METADATA_BYTES = 64 << 10
METADATA_DEPTH = 16
TAGS = 64
TAG_CHARS = 128
JSON_VALUES = 1 << 20
"""Of a body: each costs up to 100 bytes, and all are read at once."""
PAGE = 1_000
FACETS = 1_000
SEARCH_LIMIT = 1_000
SEARCH_DEPTH = 10_000
"""Of offset + limit."""
SEVERAL_DEPTH = 1_000
"""Of offset + limit where several collections are searched: each gives as many results."""
GROUP_SIZE = 100
QUERIES = 16
"""Of one search."""
SEARCHES = 100
"""Of a batch."""
SEARCH_COLLECTIONS = 16
CONTEXT = 10
"""Chunks before, and after, each one that is found."""
CANDIDATES = 1_000
"""That are reranked, or that MMR chooses from."""
FUSION_K = 10_000
LEAST_FUSION_K = 0.001
FUSION_WEIGHT = 1_000_000
"""Of a ranking: sums of scores stay finite."""
EF_SEARCH = 1_000
INDEX_M = 100
INDEX_EF_CONSTRUCTION = 1_000
VECTOR_DIMENSIONS = 16_000
KEY_NAME_CHARS = 128
KEY_COLLECTIONS = 256
