"""Let Alembic's command line print a revision as SQL; memoryd itself migrates when it starts.

alembic upgrade shared@head --sql
alembic -x schema=c_1 upgrade collection@head --sql
"""

from alembic import context
from alembic.util import CommandError

if not context.is_offline_mode():
    raise CommandError("memoryd migrates its databases itself, when it starts: --sql prints how")

context.configure(
    dialect_name="postgresql",
    schema=context.get_x_argument(as_dictionary=True).get("schema", "memoryd"),
    version_table_schema="memoryd",
)
context.run_migrations()
