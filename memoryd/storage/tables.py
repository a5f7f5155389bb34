"""What Postgres holds, described once: migrations are compared with it.

Schema `memoryd` holds what is shared. Every collection has a schema of its own, named by the
collection's number, so that its plans and statistics are its own and deleting it is DROP SCHEMA.
"""

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SHARED_SCHEMA = "memoryd"

shared = sa.MetaData(schema=SHARED_SCHEMA)

collections = sa.Table(
    "collections",
    shared,
    sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
    sa.Column("name", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("precision", sa.Text, nullable=False),
    sa.Column("chunking", JSONB, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("vector_table", sa.SmallInteger, nullable=False),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
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


def collection_schema(number: int) -> str:
    """Return the schema of the collection with that number."""
    return f"c_{number}"


def vector_table(number: int) -> str:
    """Return the name of a collection's vector table with that number."""
    return f"vectors_{number}"


def embedding_type(precision: str, dimensions: int) -> str:
    """Return the SQL type of an embedding, `halfvec(384)` or `vector(384)`."""
    return f"{'halfvec' if precision == 'half' else 'vector'}({dimensions:d})"


def describe_collection(schema: str, precision: str, dimensions: int) -> sa.MetaData:
    """Return the tables of a collection's schema, with its first vector table."""
    tables = sa.MetaData(schema=schema)
    documents = sa.Table(
        "documents",
        tables,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("external_id", sa.Text(collation="C"), nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("mime_type", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("tags", ARRAY(sa.Text), nullable=False),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
    )
    chunks = sa.Table(
        "chunks",
        tables,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "document_id",
            sa.BigInteger,
            sa.ForeignKey(documents.c.id, ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer),
        sa.Column("end_char", sa.Integer),
        sa.Column("token_count", sa.Integer, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Index("chunks_document_id_position_idx", "document_id", "position"),
    )
    vectors = vector_table(1)
    embedding = HALFVEC(dimensions) if precision == "half" else VECTOR(dimensions)
    sa.Table(
        vectors,
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
        sa.Index(f"{vectors}_document_id_idx", "document_id"),
    )
    return tables
