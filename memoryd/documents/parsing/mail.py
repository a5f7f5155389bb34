"""Messages (.eml) → text: who wrote what to whom, and when. Source: RFC 5322 and 2045 to 2049."""

from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.message import EmailMessage, MIMEPart
from email.policy import default as modern

from memoryd.documents.parsing.builder import TextBuilder, one_line
from memoryd.documents.parsing.encoding import decode
from memoryd.documents.parsing.html import write_html
from memoryd.documents.parsing.source import Source
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MOST_NESTED = 8


def parse_eml(source: Source, limits: ParsingLimits) -> Parsed:
    """Return headers, body, and the messages attached; other attachments are named, not read.

    The title is the subject. Raises InvalidInputError for what is no message.
    """
    builder = TextBuilder(limits.text_chars)
    try:
        message = message_from_bytes(source.data, _class=EmailMessage, policy=modern)
        _write(builder, message, 0)
    except (MessageError, LookupError, ValueError, TypeError, AttributeError, IndexError) as error:
        # The parsers of headers in the standard library fail in all these ways.
        raise InvalidInputError(f"the message is broken: {error}") from error
    return builder.build(_header(message, "Subject"), source.mime_type)


def _write(builder: TextBuilder, message: EmailMessage, depth: int) -> None:
    headers = ((name, _header(message, name)) for name in _HEADERS)
    builder.add("\n".join(f"{name}: {value}" for name, value in headers if value))
    body = message.get_body(("plain", "html"))
    if body is not None:
        _write_body(builder, body)
    for attachment in _attachments(message, body):
        nested = attachment.get_payload(0) if _is_message(attachment) else None
        if isinstance(nested, EmailMessage) and depth < _MOST_NESTED:
            _write(builder, nested, depth + 1)
        elif attachment.get_filename():
            builder.add(f"Attachment: {one_line(attachment.get_filename() or '')}", "\n")


def _header(message: EmailMessage, name: str) -> str:
    return one_line(str(message.get(name, "")))


def _write_body(builder: TextBuilder, body: MIMEPart) -> None:
    data = body.get_payload(decode=True)
    text = decode(data, body.get_content_charset()) if isinstance(data, bytes) else None
    if text and body.get_content_subtype() == "html":
        write_html(builder, text)
    else:
        builder.add(text or "")


def _attachments(message: EmailMessage, body: MIMEPart | None) -> Iterator[EmailMessage]:
    """Yield the parts beside the body that are messages or have a name."""
    for part in _parts(message):
        if part is not body and (_is_message(part) or part.get_filename()):
            yield part


def _parts(message: EmailMessage) -> Iterator[EmailMessage]:
    """Yield the parts of `message`, but not those of the messages in it."""
    if not message.is_multipart() or _is_message(message):
        return
    for part in message.iter_parts():
        if isinstance(part, EmailMessage):
            yield part
            yield from _parts(part)


def _is_message(part: EmailMessage) -> bool:
    return part.get_content_type() == "message/rfc822" and part.is_multipart()
