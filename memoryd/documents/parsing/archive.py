"""Zip archives that hold documents, read within limits."""

import zipfile
import zlib
from io import BytesIO

from memoryd.documents.parsing.types import ParsingLimits
from memoryd.errors import InvalidInputError, TooLargeError

_ENCRYPTED = 0x1  # bit 0 of the flags: section 4.4.4 of the ZIP specification (APPNOTE)


class Archive:
    """Hold a zip archive in memory."""

    def __init__(self, data: bytes, limits: ParsingLimits) -> None:
        """Open `data`.

        Raises InvalidInputError where it is broken or encrypted, TooLargeError where its entries
        would take more than `limits`.
        """
        try:
            self._zip = zipfile.ZipFile(BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise InvalidInputError(f"the file is broken or cut off: {error}") from error
        entries = self._zip.infolist()
        self.names = frozenset(entry.filename for entry in entries)
        if any(entry.flag_bits & _ENCRYPTED for entry in entries):
            raise InvalidInputError("the file is encrypted: remove its password")
        # No entry is unpacked beyond the size that it declares, whatever it holds.
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > limits.unpacked_bytes or len(entries) > limits.archive_entries:
            raise TooLargeError(
                f"the file unpacks to {unpacked} bytes in {len(entries)} entries; at most "
                f"{limits.unpacked_bytes} and {limits.archive_entries} are read"
            )

    def read(self, name: str) -> bytes:
        """Return the entry `name`. Raises InvalidInputError where it is absent or broken."""
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise InvalidInputError(f"the file is incomplete: it has no {name}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise InvalidInputError(f"the file is broken: {name} can't be unpacked") from error
