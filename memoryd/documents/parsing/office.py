"""What Word, PowerPoint and Excel files share: parts in an archive, and relations between them.

Source: ECMA-376 (Office Open XML), parts 1 and 2.
"""

from posixpath import dirname, join, normpath
from xml.etree.ElementTree import Element

from memoryd.documents.parsing.archive import Archive
from memoryd.documents.parsing.xml import local_name, parse_xml
from memoryd.errors import InvalidInputError

_PROPERTIES = "docProps/core.xml"


def read_part(archive: Archive, name: str) -> Element:
    """Return the root of the part `name`."""
    return parse_xml(archive.read(name), name)


def read_title(archive: Archive) -> str:
    """Return the title among the file's properties, or nothing."""
    if _PROPERTIES not in archive.names:
        return ""
    for element in read_part(archive, _PROPERTIES).iter():
        if local_name(element) == "title":
            return element.text or ""
    return ""


def relations(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """Return the type (its last word) and the part that each relation id of `part` leads to."""
    folder = dirname(part)
    name = join(folder, "_rels", f"{part[len(folder) :].lstrip('/')}.rels")
    if name not in archive.names:
        return {}
    found = {}
    for element in read_part(archive, name).iter():
        target = element.get("Target")
        if target and element.get("TargetMode") != "External":
            kind = element.get("Type", "").rpartition("/")[2]
            path = normpath(join("/", folder, target)).lstrip("/")
            found[element.get("Id", "")] = (kind, path)
    return found


def main_part(archive: Archive) -> str:
    """Return the part that holds the document."""
    for kind, path in relations(archive, "").values():
        if kind == "officeDocument":
            return path
    raise InvalidInputError("the file is incomplete: it doesn't say where its document is")


def related_part(archive: Archive, part: str, kind: str) -> str | None:
    """Return the part of that `kind` which `part` leads to, if it is there."""
    for found, path in relations(archive, part).values():
        if found == kind and path in archive.names:
            return path
    return None
