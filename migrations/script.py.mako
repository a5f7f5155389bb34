"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = "${up_revision}"
down_revision = ${f'"{down_revision}"' if down_revision else None}
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().opts["schema"]


def downgrade() -> None:
    schema = op.get_context().opts["schema"]
