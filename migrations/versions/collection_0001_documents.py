"""Make the documents and chunks of a collection.

Vector tables are made per model by memoryd itself: their column's type depends on the model.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "collection_0001"
down_revision = None
branch_labels = ("collection",)
depends_on = None


def upgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.create_table(
        "documents",
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
        schema=schema,
    )
    op.create_table(
        "chunks",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "document_id",
            sa.BigInteger,
            sa.ForeignKey(f"{schema}.documents.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("start_char", sa.Integer),
        sa.Column("end_char", sa.Integer),
        sa.Column("token_count", sa.Integer, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_index(
        "chunks_document_id_position_idx", "chunks", ["document_id", "position"], schema=schema
    )


def downgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.drop_table("chunks", schema=schema)
    op.drop_table("documents", schema=schema)
