"""Make small real files of each type, with the formats' usual writers where they exist."""

import zipfile
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from io import BytesIO

import docx
import openpyxl
import pptx


def make_zip(entries: Mapping[str, str | bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def change_entry(data: bytes, name: str, content: bytes | None) -> bytes:
    """Return the archive with another `content` of the entry `name`, or without it."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries = {each: archive.read(each) for each in archive.namelist() if each != name}
    return make_zip(entries if content is None else {**entries, name: content})


def make_pdf(
    pages: Sequence[Sequence[str]],
    title: str = "",
    bookmarks: Sequence[tuple[str, int]] = (),
    trailer: str = "",
) -> bytes:
    """Return a PDF of a line of text for each string, with (title, page index) bookmarks.

    It has what ISO 32000-1, section 7.5 asks of a file, and nothing else.
    """
    first_page = 5
    page_ids = [first_page + 2 * index for index in range(len(pages))]
    first_bookmark = first_page + 2 * len(pages)
    outline = _outline(bookmarks, first_bookmark, page_ids)
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{_references(page_ids)}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        outline[0],
    ]
    for number, lines in zip(page_ids, pages, strict=True):
        objects += _page(number, lines)
    return _pdf_file([*objects, *outline[1:], f"<< /Title ({title}) >>"], trailer)


def _references(numbers: Sequence[int]) -> str:
    return " ".join(f"{number} 0 R" for number in numbers)


def _page(number: int, lines: Sequence[str]) -> list[str]:
    shown = "\n".join(f"({line}) Tj T*" for line in lines)
    content = f"BT /F1 12 Tf 14 TL 50 750 Td\n{shown}\nET"
    return [
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {number + 1} 0 R "
        "/Resources << /Font << /F1 3 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
    ]


def _outline(
    bookmarks: Sequence[tuple[str, int]], first: int, page_ids: Sequence[int]
) -> list[str]:
    if not bookmarks:
        return ["<< /Type /Outlines >>"]
    last = first + len(bookmarks) - 1
    objects = [f"<< /Type /Outlines /First {first} 0 R /Last {last} 0 R /Count {len(bookmarks)} >>"]
    for number, (title, page) in enumerate(bookmarks, first):
        following = f"/Next {number + 1} 0 R" if number < last else ""
        objects.append(
            f"<< /Title ({title}) /Parent 4 0 R {following} /Dest [{page_ids[page]} 0 R /Fit] >>"
        )
    return objects


def _pdf_file(objects: Sequence[str], trailer: str) -> bytes:
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n"
        f"<< /Size {size} /Root 1 0 R /Info {len(objects)} 0 R {trailer} >>\n"
        f"startxref\n{len(data)}\n%%EOF\n"
    )
    return data + end.encode()


def make_encrypted_pdf() -> bytes:
    key = "00" * 32
    return make_pdf(
        [["Secret"]],
        trailer=f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -44 >> "
        "/ID [<00> <00>]",
    )


def make_docx() -> bytes:
    document = docx.Document()
    document.core_properties.title = ""
    document.add_heading("Field guide", 0)
    document.add_paragraph("Before all.")
    document.add_heading("Birds", 1)
    document.add_paragraph("Robins sing.")
    document.add_paragraph("eats worms", style="List Bullet")
    document.add_paragraph("eats berries", style="List Bullet")
    document.add_heading("Owls", 2)
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ["Kind", "Size", "Barn owl", "35 cm"], strict=True):
        cell.text = text
    return _saved(document)


def make_pptx() -> bytes:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Plan"
    slide.placeholders[1].text = "Collect\nCompare"
    slide.notes_slide.notes_text_frame.text = "Speak slowly."
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Result"
    table = slide.shapes.add_table(2, 2, 0, 0, 914400, 914400).table
    for cell, text in zip(table.iter_cells(), ["Year", "Count", "2025", "7"], strict=True):
        cell.text = text
    return _saved(presentation)


def make_xlsx() -> bytes:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    sheet.title = "People"
    for row in (["Name", "Age"], ["Ann", 33], ["Bo", 4.5]):
        sheet.append(row)
    workbook.create_sheet("Empty")
    workbook.create_sheet("Notes").append(["Only a note"])
    workbook.properties.title = "Register"
    return _saved(workbook)


def make_far_cells(last: str) -> bytes:
    workbook = openpyxl.Workbook()
    workbook.active["A1"] = workbook.active[last] = "x"
    return _saved(workbook)


def _saved(document: object) -> bytes:
    buffer = BytesIO()
    document.save(buffer)  # type: ignore[attr-defined] # the three libraries agree on it
    return buffer.getvalue()


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>Two chapters</dc:title></metadata>
<manifest>
<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="b" href="text/b%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
</manifest>
<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine>
</package>"""


def make_epub(**others: str) -> bytes:
    return make_zip(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": PACKAGE,
            "OPS/nav.xhtml": "<html><body><h1>Contents</h1></body></html>",
            "OPS/text/a.xhtml": "<html><head><title>x</title></head><body><h1>Dawn</h1>"
            "<p>The sun rose.</p></body></html>",
            "OPS/text/b b.xhtml": "<html><body><h1>Dusk</h1><p>It set.</p></body></html>",
            **others,
        }
    )


def make_eml() -> bytes:
    inner = EmailMessage()
    inner["From"], inner["Subject"] = "Cy <cy@example.org>", "Older"
    inner.set_content("The first letter.")
    message = EmailMessage()
    message["From"], message["To"] = "Ann <ann@example.org>", "Bo <bo@example.org>"
    message["Subject"] = "Grüße aus Köln"
    message.set_content("Plain body.\n")
    message.add_alternative("<p>Rich <b>body</b>.</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="offer.pdf")
    message.add_attachment(inner)
    return message.as_bytes()


def make_zip_bomb() -> bytes:
    return make_zip({"[Content_Types].xml": "<Types/>", "word/document.xml": bytes(300 << 20)})


def make_lying_zip_bomb() -> bytes:
    """Return an archive whose entry declares a hundred bytes and unpacks to more."""
    packed = make_zip({"[Content_Types].xml": "<Types/>", "word/document.xml": bytes(1 << 20)})
    size = (1 << 20).to_bytes(4, "little")
    return packed.replace(size, (100).to_bytes(4, "little"))


def billion_laughs(root: str) -> bytes:
    entities = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
    return (
        f'<?xml version="1.0"?><!DOCTYPE {root} [<!ENTITY l0 "lol">{entities}]>'
        f"<{root}>&l9;</{root}>"
    ).encode()
