"""XML of documents, which has no business with entities of its own."""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from memoryd.errors import InvalidInputError


class _RootReached(Exception):  # noqa: N818 # no error
    """End the look at what stands before the first element."""


def parse_xml(data: bytes, part: str) -> Element:
    """Return the root element of `data`.

    Raises InvalidInputError, which names the `part` of the file, where it isn't XML or defines
    entities: a few nested ones make gigabytes of text.
    """
    try:
        _refuse_entities(data)
        return ElementTree.fromstring(data)  # noqa: S314 # has no entities
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise InvalidInputError(f"the file is broken: {part} is no XML ({error})") from error


def local_name(element: Element) -> str:
    """Return the element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str | None:
    """Return the attribute of that local name, whatever its namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None


def _refuse_entities(data: bytes) -> None:
    def refuse(*_declaration: object) -> None:
        raise InvalidInputError("the file is refused: its XML defines entities")

    def stop(*_element: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(data, True)
    except _RootReached:
        return
