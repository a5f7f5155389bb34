"""Make jobs, the keys of repeated requests, and a table of a collection's generations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "shared_0003"
down_revision = "shared_0002"
branch_labels = None
depends_on = None

_OF_A_GENERATION = ("model", "dimensions", "precision", "chunking")


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column(
            "collection_id",
            sa.Integer,
            sa.ForeignKey("memoryd.collections.id", ondelete="CASCADE"),
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
        sa.UniqueConstraint("collection_id", "role", name="generations_collection_id_role_key"),
        schema="memoryd",
    )
    op.execute(
        "INSERT INTO memoryd.generations"
        " (collection_id, number, role, model, dimensions, precision, chunking)"
        " SELECT id, vector_table, 'active', model, dimensions, precision, chunking"
        " FROM memoryd.collections"
    )
    for column in (*_OF_A_GENERATION, "vector_table"):
        op.drop_column("collections", column, schema="memoryd")
    op.add_column(
        "collections", sa.Column("next_expiry", sa.TIMESTAMP(timezone=True)), schema="memoryd"
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("collection_id", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("stage", sa.Text),
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
        sa.Column("claimed_by", UUID),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True)),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True)),
        schema="memoryd",
    )
    op.create_index(
        "jobs_unfinished_idx",
        "jobs",
        ["served_at"],
        schema="memoryd",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("jobs_collection_id_idx", "jobs", ["collection_id", "id"], schema="memoryd")
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(collation="C"), primary_key=True),
        sa.Column("collection_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("claimed_by", UUID, nullable=False),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("request_hash", sa.LargeBinary),
        sa.Column("status", sa.SmallInteger),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        schema="memoryd",
    )
    op.create_index(
        "idempotency_keys_created_at_idx", "idempotency_keys", ["created_at"], schema="memoryd"
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys", schema="memoryd")
    op.drop_table("jobs", schema="memoryd")
    op.drop_column("collections", "next_expiry", schema="memoryd")
    types = (sa.Text(), sa.Integer(), sa.Text(), JSONB())
    for column, kind in (
        *zip(_OF_A_GENERATION, types, strict=True),
        ("vector_table", sa.SmallInteger()),
    ):
        op.add_column("collections", sa.Column(column, kind), schema="memoryd")
    op.execute(
        "UPDATE memoryd.collections SET model = g.model, dimensions = g.dimensions,"
        " precision = g.precision, chunking = g.chunking, vector_table = g.number"
        " FROM memoryd.generations g WHERE g.collection_id = collections.id AND g.role = 'active'"
    )
    for column in (*_OF_A_GENERATION, "vector_table"):
        op.alter_column("collections", column, nullable=False, schema="memoryd")
    op.drop_table("generations", schema="memoryd")
