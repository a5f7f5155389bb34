"""Schemas of a database, compared as words."""

import asyncpg

# Everything that a schema has, in words.
DESCRIPTION = """
SELECT c.relkind::text AS kind, c.relname AS name, a.attname AS part,
  format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || a.attidentity::text
  || ' ' || coalesce(co.collname, '') || ' ' || a.attstorage::text
  || ' ' || coalesce(pg_get_expr(ad.adbin, ad.adrelid), '') AS detail
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
WHERE n.nspname = $1
UNION ALL
SELECT 'constraint', c.conname, '', pg_get_constraintdef(c.oid)
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE n.nspname = $1
UNION ALL
SELECT 'index', indexname, '', indexdef FROM pg_indexes WHERE schemaname = $1
ORDER BY 1, 2, 3, 4
"""


async def describe(connection: asyncpg.Connection, schema: str) -> list[tuple[str, ...]]:
    """Return kind, name, part and detail of all that a schema has, but for its revision."""
    rows = await connection.fetch(DESCRIPTION, schema)
    return [tuple(row) for row in rows if row["name"] != "alembic_version"]
