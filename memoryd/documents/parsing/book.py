"""Books (.epub) → light Markdown.

Source: EPUB 3.3, sections 4.2 (container) and 5 (package document).
"""

from collections.abc import Iterator
from posixpath import dirname, join, normpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.builder import TextBuilder
from memoryd.documents.parsing.encoding import decode
from memoryd.documents.parsing.html import write_html
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.documents.parsing.xml import local_name, parse_xml
from memoryd.errors import InvalidInputError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_CHAPTER_TYPES = ("application/xhtml+xml", "text/html")


def parse_epub(source: Source, limits: ParsingLimits) -> Parsed:
    """Return the chapters in reading order, by heading.

    Raises InvalidInputError for a book whose chapters are encrypted.
    """
    archive = Archive(source.data, limits)
    path = _package_path(archive)
    package = parse_xml(archive.read(path), path)
    chapters = list(_chapters(package, dirname(path)))
    _refuse_encrypted(archive, chapters)
    builder = TextBuilder(limits.text_chars)
    for chapter in chapters:
        write_html(builder, decode(archive.read(chapter)) or "")
    titles = [element.text or "" for element in package.iter() if local_name(element) == "title"]
    return builder.build(next(iter(titles), ""), source.mime_type)


def _package_path(archive: Archive) -> str:
    for element in parse_xml(archive.read(_CONTAINER), _CONTAINER).iter():
        path = element.get("full-path")
        if path:
            return path
    raise InvalidInputError("the book is incomplete: it doesn't say where its contents are")


def _chapters(package: Element, folder: str) -> Iterator[str]:
    """Yield the paths of the chapters in reading order; the table of contents is none."""
    items = {
        element.get("id"): element for element in package.iter() if local_name(element) == "item"
    }
    for element in package.iter():
        item = items.get(element.get("idref")) if local_name(element) == "itemref" else None
        if item is None or item.get("media-type") not in _CHAPTER_TYPES:
            continue
        if "nav" not in item.get("properties", "").split():
            yield normpath(join(folder, unquote(item.get("href", ""))))


def _refuse_encrypted(archive: Archive, chapters: list[str]) -> None:
    """Refuse a book under digital rights management; fonts may be scrambled."""
    if _ENCRYPTION not in archive.names:
        return
    for element in parse_xml(archive.read(_ENCRYPTION), _ENCRYPTION).iter():
        if unquote(element.get("URI", "")) in chapters:
            raise InvalidInputError("the book is encrypted (DRM): only free ones can be read")
