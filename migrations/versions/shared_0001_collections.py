"""Make the collections and their aliases."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "shared_0001"
down_revision = None
branch_labels = ("shared",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "collections",
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
        schema="memoryd",
    )
    op.create_table(
        "aliases",
        sa.Column("alias", sa.Text(collation="C"), primary_key=True),
        sa.Column(
            "collection_id",
            sa.Integer,
            sa.ForeignKey("memoryd.collections.id", ondelete="CASCADE"),
            nullable=False,
        ),
        schema="memoryd",
    )
    op.create_index(
        "ix_memoryd_aliases_collection_id", "aliases", ["collection_id"], schema="memoryd"
    )


def downgrade() -> None:
    op.drop_table("aliases", schema="memoryd")
    op.drop_table("collections", schema="memoryd")
