"""What a file is: by its bytes first, by its name and the sender's word only between texts."""

import re
from pathlib import PurePath

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.encoding import decode
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import ParsingLimits
from memoryd.errors import InvalidInputError

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB = "application/epub+zip"
HTML = "text/html"
EML = "message/rfc822"
TEXT = "text/plain"

# A PDF may have other bytes before its header: ISO 32000-1, appendix H, note 13.
_PDF_HEADER_BYTES = 1024
_ZIP = b"PK\x03\x04"
_COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")  # [MS-OFFCRYPTO] 2.3.4.4
_OFFICE_FOLDERS = {"word/": DOCX, "ppt/": PPTX, "xl/": XLSX}
_OTHERS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"RIFF", "a sound, video or WebP file"),
    (b"ID3", "a sound file"),
    (b"OggS", "a sound or video file"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "an xz archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "a SQLite database"),
    (b"PAR1", "a Parquet file"),
    (rb"{\rtf", "a rich text file: save it as .docx"),
    (b"%!PS", "a PostScript file: save it as .pdf"),
)
_BY_SUFFIX = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdx": "text/markdown",
    ".htm": HTML,
    ".html": HTML,
    ".xhtml": HTML,
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".eml": EML,
    ".txt": TEXT,
    ".text": TEXT,
    ".log": TEXT,
    ".c": "text/x-c",
    ".h": "text/x-c",
    ".cc": "text/x-c++",
    ".cpp": "text/x-c++",
    ".hpp": "text/x-c++",
    ".cs": "text/x-csharp",
    ".go": "text/x-go",
    ".java": "text/x-java",
    ".js": "text/javascript",
    ".jsx": "text/javascript",
    ".kt": "text/x-kotlin",
    ".lua": "text/x-lua",
    ".php": "text/x-php",
    ".py": "text/x-python",
    ".rb": "text/x-ruby",
    ".rs": "text/x-rust",
    ".scala": "text/x-scala",
    ".sh": "text/x-sh",
    ".sql": "text/x-sql",
    ".swift": "text/x-swift",
    ".ts": "text/x-typescript",
    ".tsx": "text/x-typescript",
}
_SAME = {
    "application/xhtml+xml": HTML,
    "application/jsonl": "application/x-ndjson",
    "application/jsonlines": "application/x-ndjson",
    "text/x-markdown": "text/markdown",
    "application/csv": "text/csv",
}
_HTML_START = re.compile(
    r"\s*+(?>(?>(?:<!--.*?-->|<\?xml[^>]*+>)\s*+)*)<(?:!doctype html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_MAIL_START = re.compile(
    r"(?:From \S+.*\n)?(?:(?:Received|Return-Path|Delivered-To|From|To|Date|Subject|Message-ID|"
    r"MIME-Version|DKIM-Signature|X-[\w-]+|Content-Type):.*\n(?:[ \t].*\n)*){3}",
    re.IGNORECASE,
)
_SAMPLE_BYTES = 8192
_MIME_TYPE_OF_TEXT = re.compile(r"text/[\w.+-]+\Z")


def identify(data: bytes, name: str, mime_type: str | None, limits: ParsingLimits) -> Source:
    """Return the file as its parser needs it.

    `name` and `mime_type` tell one kind of text from another, and nothing else. Raises
    InvalidInputError, with what it is, for a file that memoryd doesn't read.
    """
    if not data.strip():
        raise InvalidInputError("the file is empty")
    if b"%PDF-" in data[:_PDF_HEADER_BYTES]:
        return Source(data, PDF)
    if data.startswith(_ZIP):
        return Source(data, _type_of_archive(Archive(data, limits)))
    _refuse_others(data)
    return _identify_text(data, name, mime_type)


def _type_of_archive(archive: Archive) -> str:
    if "META-INF/container.xml" in archive.names:
        return EPUB
    if "[Content_Types].xml" in archive.names:
        for folder, mime_type in _OFFICE_FOLDERS.items():
            if any(name.startswith(folder) for name in archive.names):
                return mime_type
    if "mimetype" in archive.names and b"opendocument" in archive.read("mimetype"):
        raise InvalidInputError(
            "the file is in OpenDocument format: save it as .docx, .xlsx, .pptx or .pdf"
        )
    raise InvalidInputError("the file is a zip archive: unpack it, and send what is in it")


def _refuse_others(data: bytes) -> None:
    if data.startswith(_COMPOUND_FILE):
        if _ENCRYPTED_PACKAGE in data:
            raise InvalidInputError("the file is encrypted: remove its password")
        raise InvalidInputError(
            "the file is in a format of Office 97 to 2003 or Outlook: save it as .docx, .xlsx, "
            ".pptx or .eml"
        )
    for start, what in _OTHERS:
        if data.startswith(start):
            raise InvalidInputError(f"the file is {what}; memoryd reads text and documents")


def _identify_text(data: bytes, name: str, mime_type: str | None) -> Source:
    declared = _HTML_CHARSET.search(data, 0, _SAMPLE_BYTES)
    text = decode(data, declared[1].decode("ascii", "replace") if declared else None)
    if text is None:
        raise InvalidInputError("the file is of an unknown type: neither text nor a known document")
    if not text.strip():
        raise InvalidInputError("the file has no text")
    return Source(data, _type_of_text(text, name, mime_type), text)


def _type_of_text(text: str, name: str, mime_type: str | None) -> str:
    start = text[:_SAMPLE_BYTES]
    if _HTML_START.match(start):
        return HTML
    suffix = PurePath(name).suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    told = (mime_type or "").partition(";")[0].strip().lower()
    told = _SAME.get(told, told)
    if told in _BY_SUFFIX.values():
        return told
    if _MAIL_START.match(start.replace("\r\n", "\n")):
        return EML
    return told if _MIME_TYPE_OF_TEXT.match(told) else TEXT
