"""A file whose format is known, as its parser gets it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Hold a file; of binary formats the text is empty."""

    data: bytes
    mime_type: str
    """Of what the file is found to be."""
    text: str = ""
