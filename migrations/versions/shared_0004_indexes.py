"""Note what a collection's indexes should be, and what those of a generation are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "shared_0004"
down_revision = "shared_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("index_settings", "indexed_fields"):
        op.add_column(
            "collections",
            sa.Column(name, JSONB, nullable=False, server_default="{}"),
            schema="memoryd",
        )
    op.add_column("generations", sa.Column("dense_index", JSONB), schema="memoryd")
    # The chunks that there are have no lexemes yet; those of later generations get them at once.
    op.add_column(
        "generations",
        sa.Column("lexical_state", sa.Text, nullable=False, server_default="building"),
        schema="memoryd",
    )
    op.alter_column("generations", "lexical_state", server_default="ready", schema="memoryd")


def downgrade() -> None:
    for name in ("dense_index", "lexical_state"):
        op.drop_column("generations", name, schema="memoryd")
    for name in ("index_settings", "indexed_fields"):
        op.drop_column("collections", name, schema="memoryd")
