"""The first bytes of a GGUF, and of what is taken for one.

GGUF: ggml's docs/gguf.md. The older formats of ggml begin with `ggml`, `ggmf`, `ggjt` or `ggla`
as a little-endian number: the constants LLAMA_FILE_MAGIC_… that llama.h had before GGUF.
"""

from pathlib import Path

from memoryd.errors import ModelFileError

HEAD_BYTES = 4
_GGUF = b"GGUF"
_OLD_FORMATS = frozenset({b"lmgg", b"fmgg", b"tjgg", b"algg"})


def check_gguf(path: Path) -> None:
    """Raise ModelFileError unless `path` is a file that begins as a GGUF does."""
    if not path.is_file():
        raise ModelFileError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error
    refuse_other_formats(head, str(path))


def refuse_other_formats(head: bytes, subject: str) -> None:
    """Raise ModelFileError that says what `subject` is instead, unless `head` is a GGUF's."""
    if head == _GGUF:
        return
    if head in _OLD_FORMATS:
        raise ModelFileError(
            f"{subject} has ggml's format from before GGUF, as bert.cpp's .bin files do, and "
            "llama.cpp can't read it. Convert the model that it was made from: give memoryd its "
            "folder or its name on the hub, as in hf:organization/repository"
        )
    if head.lstrip().startswith(b"<"):
        raise ModelFileError(f"{subject} is not a GGUF but a web page, such as to sign in")
    raise ModelFileError(f"{subject} is not a GGUF: it begins with {head!r}")
