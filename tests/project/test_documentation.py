"""Pages that are made from the code, and the command line that developers use."""

import shutil
import subprocess
import sys
from pathlib import Path


def test_every_setting_is_documented(repository: Path) -> None:
    script = repository / "scripts" / "settings_page.py"
    subprocess.run([sys.executable, script, "--check"], check=True)


def test_alembic_writes_new_revisions_that_memoryd_can_read(
    repository: Path, commands: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "migrations", tmp_path / "migrations")
    shutil.copy(repository / "alembic.ini", tmp_path)

    def alembic(*arguments: str) -> str:
        command = [str(commands / "alembic"), *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return result.stdout

    head = next(line.split()[0] for line in alembic("heads").splitlines() if "(collection)" in line)
    alembic("revision", "--head", "collection@head", "--rev-id", "collection_9999", "-m", "Try it")

    assert (tmp_path / "migrations" / "versions" / "collection_9999_try_it.py").exists()
    assert f"{head} -> collection_9999 (collection) (head), Try it" in alembic("history")
    sql = alembic("-x", "schema=c_7", "upgrade", "collection@head", "--sql")
    assert "CREATE TABLE c_7.documents" in sql
