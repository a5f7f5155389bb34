"""Make the drafts, which wait to be stored, and name the chunks after their generation."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "collection_0002"
down_revision = "collection_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.add_column("documents", sa.Column("error", JSONB), schema=schema)
    op.add_column("documents", sa.Column("sections", JSONB), schema=schema)
    op.add_column(
        "documents",
        sa.Column("has_own_chunks", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=schema,
    )
    op.add_column("documents", sa.Column("expires_at", sa.TIMESTAMP(timezone=True)), schema=schema)
    op.add_column(
        "documents",
        sa.Column("last_draft", sa.BigInteger, nullable=False, server_default="0"),
        schema=schema,
    )
    op.drop_column("documents", "chunk_count", schema=schema)
    op.create_index(
        "documents_expires_at_idx",
        "documents",
        ["expires_at"],
        schema=schema,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.execute(f"CREATE SEQUENCE {schema}.chunk_ids")
    op.execute(
        f"SELECT setval('{schema}.chunk_ids', (SELECT coalesce(max(id), 0) + 1"
        f" FROM {schema}.chunks), false)"
    )
    _rename_table(schema, "chunks", "chunks_1")
    op.execute(
        f"ALTER TABLE {schema}.chunks_1 ALTER id DROP IDENTITY,"
        f" ALTER id SET DEFAULT nextval('{schema}.chunk_ids'), ALTER token_count DROP NOT NULL,"
        " ADD page int, ADD headings text[]"
    )
    op.create_table(
        "drafts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("document_id", sa.BigInteger),
        sa.Column("external_id", sa.Text),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("file", sa.LargeBinary),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("error", JSONB),
        sa.Column("result", JSONB),
        sa.Column("claimed_by", UUID),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        schema=schema,
    )
    for name, columns, condition in (
        ("drafts_waiting_idx", ["job_id", "id"], "outcome IS NULL"),
        ("drafts_settled_idx", ["job_id", "id"], "outcome IS NOT NULL"),
        ("drafts_document_id_idx", ["document_id", "id"], "outcome IS NULL"),
    ):
        op.create_index(name, "drafts", columns, schema=schema, postgresql_where=sa.text(condition))
    # Every draft becomes a dead row: the claims would read more and more of them.
    op.execute(f"ALTER TABLE {schema}.drafts SET (autovacuum_vacuum_scale_factor = 0.02)")


def _rename_table(schema: str, old: str, new: str) -> None:
    """Rename a table with its index and constraints; those of NOT NULL have names since 18."""
    index = "document_id_position_idx"
    op.execute(f"ALTER TABLE {schema}.{old} RENAME TO {new}")
    op.execute(f"ALTER INDEX {schema}.{old}_{index} RENAME TO {new}_{index}")
    op.execute(
        "DO $$ DECLARE old_name text; BEGIN"
        " FOR old_name IN SELECT conname FROM pg_constraint"
        f" WHERE conrelid = '{schema}.{new}'::regclass LOOP"
        f" EXECUTE 'ALTER TABLE {schema}.{new} RENAME CONSTRAINT ' || quote_ident(old_name)"
        f" || ' TO ' || quote_ident(overlay(old_name PLACING '{new}' FROM 1 FOR {len(old)}));"
        " END LOOP; END $$"
    )


def downgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.execute(
        f"DO $$ BEGIN IF to_regclass('{schema}.chunks_1') IS NULL THEN RAISE EXCEPTION"
        " 'the documents were embedded again by another model: there is no way back'; END IF;"
        " END $$"
    )
    op.drop_table("drafts", schema=schema)
    _rename_table(schema, "chunks_1", "chunks")
    op.execute(
        f"ALTER TABLE {schema}.chunks ALTER id DROP DEFAULT, DROP page, DROP headings,"
        " ALTER token_count SET NOT NULL"
    )
    op.execute(f"ALTER TABLE {schema}.chunks ALTER id ADD GENERATED ALWAYS AS IDENTITY")
    op.execute(
        f"SELECT setval(pg_get_serial_sequence('{schema}.chunks', 'id'),"
        f" (SELECT coalesce(max(id), 0) + 1 FROM {schema}.chunks), false)"
    )
    op.execute(f"DROP SEQUENCE {schema}.chunk_ids")
    op.drop_index("documents_expires_at_idx", "documents", schema=schema)
    op.add_column(
        "documents",
        sa.Column("chunk_count", sa.Integer, nullable=False, server_default="0"),
        schema=schema,
    )
    op.execute(
        f"UPDATE {schema}.documents d SET chunk_count ="
        f" (SELECT count(*) FROM {schema}.chunks c WHERE c.document_id = d.id)"
    )
    op.alter_column("documents", "chunk_count", server_default=None, schema=schema)
    for column in ("error", "sections", "has_own_chunks", "expires_at", "last_draft"):
        op.drop_column("documents", column, schema=schema)
