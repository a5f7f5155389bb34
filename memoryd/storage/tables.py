"""What Postgres holds, described once: migrations are compared with it.

Schema `memoryd` holds what is shared. Every collection has a schema of its own, named by the
collection's number, so that its plans and statistics are its own and deleting it is DROP SCHEMA.
"""

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR, UUID

SHARED_SCHEMA = "memoryd"
LEXEME_DIMENSIONS = 1_000_000_000
"""The most that a sparsevec may have: lexemes are hashed to them."""

shared = sa.MetaData(schema=SHARED_SCHEMA)

collections = sa.Table(
    "collections",
    shared,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
    # When the first of its documents expires, or before; NULL: none does.
    sa.Column("next_expiry", sa.TIMESTAMP(timezone=True)),
    # What the client wants of its indexes; what it doesn't say is memoryd's choice.
    sa.Column("index_settings", JSONB, nullable=False, server_default="{}"),
    sa.Column("indexed_fields", JSONB, nullable=False, server_default="{}"),
)

# A collection's documents are chunked and embedded once for each of its generations. Searches read
# the active one; one may be building, to take its place, and the previous one waits for a rollback.
generations = sa.Table(
    "generations",
    shared,
    sa.Column(
        "collection_id",
        sa.Integer,
        sa.ForeignKey(collections.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("number", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("chunking", JSONB, nullable=False),
    sa.Column("instruction", sa.Text),
    sa.Column("dense_index", JSONB),  # the one that searches can use; NULL: none, or none yet
    sa.Column("lexical_state", sa.Text, nullable=False, server_default="ready"),
    sa.UniqueConstraint("collection_id", "role", name="generations_collection_id_role_key"),
)

aliases = sa.Table(
    "aliases",
    shared,
    sa.Column("alias", sa.Text(collation="C"), primary_key=True),
    sa.Column(
        "collection_id",
        sa.Integer,
        sa.ForeignKey(collections.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
)

api_keys = sa.Table(
    "api_keys",
    shared,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    # NULL: all. No foreign key goes from an array; numbers are never given away again.
    sa.Column("collection_ids", ARRAY(sa.Integer)),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("last_used_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("expires_at", sa.TIMESTAMP(timezone=True)),
)

jobs = sa.Table(
    "jobs",
    shared,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    # No foreign key: the job of a deleted collection can still be asked after.
    sa.Column("collection_id", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("stage", sa.Text),
    # Until when more drafts are on their way, unless whoever brings them says so again.
    sa.Column("open_until", sa.TIMESTAMP(timezone=True)),
    sa.Column("counts", JSONB, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("last_error", JSONB),
    sa.Column("parameters", JSONB, nullable=False),
    sa.Column("checkpoint", JSONB),
    sa.Column("result", JSONB),
    sa.Column("served_at", sa.TIMESTAMP(timezone=True)),
    # Of a job that one worker runs as a whole; those of `ingest` are claimed draft by draft.
    sa.Column("claimed_by", UUID),
    sa.Column("lease_until", sa.TIMESTAMP(timezone=True)),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
    sa.Index("jobs_unfinished_idx", "served_at", postgresql_where=sa.text("finished_at IS NULL")),
    sa.Index("jobs_collection_id_idx", "collection_id", "id"),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    shared,
    sa.Column("key", sa.Text(collation="C"), primary_key=True),
    sa.Column("collection_id", sa.Integer, primary_key=True, autoincrement=False),
    # Who works for it, until when unless it says so again; then whoever asks may.
    sa.Column("claimed_by", UUID, nullable=False),
    sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=False),
    # All three are there, or none yet.
    sa.Column("request_hash", sa.LargeBinary),
    sa.Column("status", sa.SmallInteger),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Index("idempotency_keys_created_at_idx", "created_at"),
)


def collection_schema(number: int) -> str:
    """Return the schema of the collection with that number."""
    return f"c_{number}"


def chunk_table(generation: int) -> str:
    """Return the name of the table of a generation's chunks."""
    return f"chunks_{generation:d}"


def vector_table(generation: int) -> str:
    """Return the name of the table of a generation's vectors."""
    return f"vectors_{generation:d}"


def lexical_table(generation: int) -> str:
    """Return the name of the table of the lexemes of a generation's chunks."""
    return f"lexical_{generation:d}"


def term_table(generation: int) -> str:
    """Return the name of the table of how many chunks of a generation have a lexeme."""
    return f"terms_{generation:d}"


def term_change_table(generation: int) -> str:
    """Return the name of the table of what the table of terms doesn't count yet."""
    return f"term_changes_{generation:d}"


def embedding_type(precision: str, dimensions: int) -> str:
    """Return the SQL type of an embedding, `halfvec(384)` or `vector(384)`."""
    return f"{'halfvec' if precision == 'half' else 'vector'}({dimensions:d})"


def describe_collection(schema: str, precision: str, dimensions: int) -> sa.MetaData:
    """Return the tables of a collection's schema, with those of its first generation."""
    tables = sa.MetaData(schema=schema)
    documents = _describe_documents(tables)
    _describe_drafts(tables)
    _describe_generation(tables, documents, precision, dimensions)
    return tables


def _describe_documents(tables: sa.MetaData) -> sa.Table:
    return sa.Table(
        "documents",
        tables,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("external_id", sa.Text(collation="C"), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False),  # 0: accepted and not yet stored
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("mime_type", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("tags", ARRAY(sa.Text), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("error", JSONB),  # why the last draft of it could not be stored
        sa.Column("sections", JSONB),  # pages and headings of a file
        sa.Column("has_own_chunks", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("last_draft", sa.BigInteger, nullable=False, server_default="0"),
        sa.Index(
            "documents_expires_at_idx",
            "expires_at",
            postgresql_where=sa.text("expires_at IS NOT NULL"),
        ),
        sa.Index(
            "documents_metadata_idx",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ),
        sa.Index("documents_tags_idx", "tags", postgresql_using="gin"),
    )


def _describe_drafts(tables: sa.MetaData) -> None:
    # What was accepted and waits to be stored, in order of acceptance; those that failed stay.
    sa.Table(
        "drafts",
        tables,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("document_id", sa.BigInteger),
        sa.Column("external_id", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("file", sa.LargeBinary),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text),  # NULL: none yet
        sa.Column("error", JSONB),
        sa.Column("result", JSONB),
        sa.Column("claimed_by", UUID),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        *(
            sa.Index(name, column, "id", postgresql_where=sa.text(condition))
            for name, column, condition in (
                ("drafts_waiting_idx", "job_id", "outcome IS NULL"),
                ("drafts_settled_idx", "job_id", "outcome IS NOT NULL"),
                ("drafts_document_id_idx", "document_id", "outcome IS NULL"),
            )
        ),
    )


def _describe_generation(
    tables: sa.MetaData, documents: sa.Table, precision: str, dimensions: int
) -> None:
    # One sequence for all generations: no two chunks of a collection have the same number.
    numbers = sa.Sequence("chunk_ids", schema=tables.schema, metadata=tables)
    chunks = sa.Table(
        chunk_table(1),
        tables,
        sa.Column("id", sa.BigInteger, server_default=numbers.next_value(), primary_key=True),
        sa.Column(
            "document_id",
            sa.BigInteger,
            sa.ForeignKey(documents.c.id, ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer),
        sa.Column("end_char", sa.Integer),
        sa.Column("token_count", sa.Integer),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("page", sa.Integer),
        sa.Column("headings", ARRAY(sa.Text)),
        sa.Index(f"{chunk_table(1)}_document_id_position_idx", "document_id", "position"),
    )
    embedding = HALFVEC(dimensions) if precision == "half" else VECTOR(dimensions)
    sa.Table(
        vector_table(1),
        tables,
        sa.Column(
            "chunk_id",
            sa.BigInteger,
            sa.ForeignKey(chunks.c.id, ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("document_id", sa.BigInteger, nullable=False),
        sa.Column("embedding", embedding, nullable=False),
        sa.Index(f"{vector_table(1)}_document_id_idx", "document_id"),
    )
    _describe_lexical(tables, chunks)


def _describe_lexical(tables: sa.MetaData, chunks: sa.Table) -> None:
    sa.Table(
        lexical_table(1),
        tables,
        sa.Column(
            "chunk_id",
            sa.BigInteger,
            sa.ForeignKey(chunks.c.id, ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("document_id", sa.BigInteger, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("lexemes", TSVECTOR, nullable=False),
        sa.Column("frequencies", SPARSEVEC(LEXEME_DIMENSIONS), nullable=False),
        sa.Index(f"{lexical_table(1)}_document_id_idx", "document_id"),
        sa.Index(f"{lexical_table(1)}_lexemes_idx", "lexemes", postgresql_using="gin"),
    )
    # The empty lexeme stands for all: its chunks are all that there are, its length theirs.
    sa.Table(
        term_table(1),
        tables,
        sa.Column("lexeme", sa.Text(collation="C"), primary_key=True),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
    )
    # What was written and is not counted there yet: writers only add to it, so none waits.
    sa.Table(
        term_change_table(1),
        tables,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("sign", sa.SmallInteger, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
        sa.Column("lexemes", TSVECTOR, nullable=False),
    )
