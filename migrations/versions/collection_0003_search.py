"""Make what lexical search reads, for each generation, and index what filters ask of documents."""

from alembic import op

revision = "collection_0003"
down_revision = "collection_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.execute(
        f"CREATE INDEX documents_metadata_idx ON {schema}.documents"
        " USING gin (metadata jsonb_path_ops)"
    )
    op.execute(f"CREATE INDEX documents_tags_idx ON {schema}.documents USING gin (tags)")
    # A collection that was embedded again has other generations than the first.
    op.execute(
        "DO $$ DECLARE n text; BEGIN"
        " FOR n IN SELECT substr(relname, 8) FROM pg_class WHERE relkind = 'r'"
        f" AND relnamespace = '{schema}'::regnamespace AND relname ~ '^chunks_[0-9]+$' LOOP"
        f" {_create_tables(schema)}"
        " END LOOP; END $$"
    )


def _create_tables(schema: str) -> str:
    """Return PL/pgSQL that makes the tables of generation `n`."""
    statements = (
        f"CREATE TABLE {schema}.lexical_@ ("
        "chunk_id bigint NOT NULL, document_id bigint NOT NULL, length int NOT NULL,"
        " lexemes tsvector NOT NULL,"
        " frequencies sparsevec(1000000000) STORAGE MAIN NOT NULL,"
        " CONSTRAINT lexical_@_pkey PRIMARY KEY (chunk_id),"
        " CONSTRAINT lexical_@_chunk_id_fkey FOREIGN KEY (chunk_id)"
        f" REFERENCES {schema}.chunks_@ ON DELETE CASCADE)",
        f"CREATE INDEX lexical_@_document_id_idx ON {schema}.lexical_@ (document_id)",
        f"CREATE INDEX lexical_@_lexemes_idx ON {schema}.lexical_@ USING gin (lexemes)",
        f'CREATE TABLE {schema}.terms_@ (lexeme text COLLATE "C" NOT NULL,'
        " chunks bigint NOT NULL, length bigint NOT NULL,"
        " CONSTRAINT terms_@_pkey PRIMARY KEY (lexeme))",
        f"CREATE TABLE {schema}.term_changes_@ (id bigint GENERATED ALWAYS AS IDENTITY,"
        " sign smallint NOT NULL, length int NOT NULL, lexemes tsvector NOT NULL,"
        " CONSTRAINT term_changes_@_pkey PRIMARY KEY (id))",
    )
    return " ".join(f"EXECUTE replace('{statement}', '@', n);" for statement in statements)


def downgrade() -> None:
    schema = op.get_context().opts["schema"]
    op.execute(
        "DO $$ DECLARE n text; BEGIN"
        " FOR n IN SELECT substr(relname, 8) FROM pg_class WHERE relkind = 'r'"
        f" AND relnamespace = '{schema}'::regnamespace AND relname ~ '^chunks_[0-9]+$' LOOP"
        f" EXECUTE replace('DROP TABLE {schema}.lexical_@, {schema}.terms_@,"
        f" {schema}.term_changes_@', '@', n);"
        " END LOOP; END $$"
    )
    op.drop_index("documents_tags_idx", "documents", schema=schema)
    op.drop_index("documents_metadata_idx", "documents", schema=schema)
