"""cl100k, in whose token ids clients of OpenAI's embedding models send texts.

The table, its addresses and its special tokens are those of tiktoken 0.14 (`cl100k_base` in
tiktoken_ext/openai_public.py, the cache in tiktoken/load.py): a line for each token, its bytes in
base64 and its id, in the order of the ids.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
from binascii import a2b_base64
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from memoryd.errors import InvalidInputError, ModelFileError
from memoryd.models.downloads import Download, Progress, download, tell_nobody
from memoryd.models.gallery import GalleryEntry, Package, SourceFile
from memoryd.models.locks import locked
from memoryd.models.packages import fetch_from_package
from memoryd.models.store import unusable
from memoryd.models.transport import Patience, open_session

logger = logging.getLogger(__name__)

NAME = "cl100k"
ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
SIZE_BYTES = 1_681_126
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
# The sha1 of ADDRESS: what tiktoken, and packages that carry its cache, call the file.
CACHE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"

# An old version of a package that has it, too: later ones are large, and differ by platform.
_ENTRY = GalleryEntry(
    name=NAME,
    files=(SourceFile(CACHE_NAME, SIZE_BYTES, SHA256),),
    package=Package("litellm", "1.60.0", "litellm/litellm_core_utils/tokenizers"),
)
_IMPATIENT = Patience(answer_s=5.0)  # another source can stand in
_SPECIAL_TOKENS = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}

Table: TypeAlias = tuple[bytes, ...]
"""The bytes of each id's token, none for ids that mean nothing; about 5 MB."""

_reading = Lock()


def table_path(models_dir: Path) -> Path:
    """Return where the table lies once it was fetched: TIKTOKEN_CACHE_DIR may name its folder."""
    return models_dir / "tiktoken" / CACHE_NAME


def load_table(models_dir: Path) -> Table | None:
    """Return the table, from the models directory or where tiktoken keeps it; None: it isn't here.

    A file with other bytes counts as none. It is read once, however many threads ask.
    """
    places = (table_path(models_dir), _tiktoken_path())
    with _reading:
        return next(filter(None, map(_read_if_here, places)), None)


def is_fetched(models_dir: Path) -> bool:
    """Return whether the table lies in the models directory."""
    with _reading:
        return _read_if_here(table_path(models_dir)) is not None


def _tiktoken_path() -> Path:
    """Return where tiktoken keeps the table; where it keeps nothing, there is no such file."""
    default = Path(tempfile.gettempdir()) / "data-gym-cache"
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", default))
    return Path(folder or os.devnull) / CACHE_NAME


def _read_if_here(path: Path) -> Table | None:
    try:
        status = path.stat()
        # The folder may be anybody's: of what is longer, nothing is read.
        return _read(path, status.st_mtime_ns) if status.st_size == SIZE_BYTES else None
    except OSError:
        return None


@lru_cache(maxsize=2)
def _read(path: Path, _changed_ns: int) -> Table | None:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        logger.warning("%s isn't the table of cl100k: it is left alone", path)
        return None
    tokens = [a2b_base64(line.partition(b" ")[0]) for line in content.splitlines()]
    rest = range(len(tokens), max(_SPECIAL_TOKENS) + 1)
    return (*tokens, *(_SPECIAL_TOKENS.get(token, b"") for token in rest))


def decode(table: Table, parts: Sequence[int | str], param: str) -> str:
    """Return the text that token ids, and texts between them, are together.

    Special tokens are written out; bytes that are no UTF-8 become U+FFFD, as an input may begin or
    end within a character. Raises InvalidInputError, naming `param`, for an id that means nothing.
    """
    for part in parts:
        if isinstance(part, int) and not (0 <= part < len(table) and table[part]):
            raise InvalidInputError(f"{param}: {part} is no token of {NAME}", param)
    pieces = (part.encode() if isinstance(part, str) else table[part] for part in parts)
    return b"".join(pieces).decode(errors="replace")


async def fetch_table(
    models_dir: Path, progress: Progress = tell_nobody, *, address: str = ADDRESS
) -> Path:
    """Return the path of the table in the models directory, fetched unless it is there.

    Raises ModelFileError saying what mends it.
    """
    target = table_path(models_dir)
    try:
        async with locked(models_dir / f".lock-{NAME}"):
            if not await asyncio.to_thread(is_fetched, models_dir):
                target.unlink(missing_ok=True)
                await _fetch(address, target, progress)
    except OSError as error:
        raise unusable(models_dir, error) from error
    return target


async def _fetch(address: str, target: Path, progress: Progress) -> None:
    wanted = Download(address, f"the table of {NAME}", SIZE_BYTES, SHA256)
    try:
        async with open_session(_IMPATIENT) as session:
            await download(session, wanted, target, progress, _IMPATIENT)
    except ModelFileError as error:
        said = error.message
    else:
        return
    logger.info("%s; fetching a package that has it", said)
    try:
        await fetch_from_package(_ENTRY, target.parent, progress)
    except ModelFileError as error:
        raise ModelFileError(
            f"the table of {NAME} can't be fetched ({said}; {error.message}). Connect this machine "
            "to the internet, set PIP_INDEX_URL to an index that has litellm, or copy "
            f"{target.name} from where tiktoken keeps it to {target.parent}"
        ) from error
