# ruff: noqa: RUF001 # the punctuation of other scripts is meant
"""What each type of file says: its text, its title, and where pages and headings are."""

import pytest
from file_samples import (
    make_docx,
    make_eml,
    make_epub,
    make_pdf,
    make_pptx,
    make_xlsx,
    make_zip,
)

from memoryd.documents.outline import section_at
from memoryd.documents.parsing import detect
from memoryd.documents.parsing.files import parse_file
from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError, TooLargeError


def parse(data: bytes, name: str = "", mime_type: str | None = None, **limits: int) -> Parsed:
    return parse_file(data, name, mime_type, ParsingLimits(**limits))


def sections(parsed: Parsed) -> list[tuple[str, int | None, tuple[str, ...]]]:
    """Return the text, page and headings of each section, after checks that hold for all."""
    end = 0
    for section in parsed.sections:
        assert end <= section.start_char < section.end_char <= len(parsed.text)
        assert not parsed.text[end : section.start_char].strip() or not end
        end = section.end_char
    return [
        (parsed.text[section.start_char : section.end_char], section.page, section.headings)
        for section in parsed.sections
    ]


# --- Each type -------------------------------------------------------------------------------


def test_a_text_file_is_its_text() -> None:
    assert parse("Ünï\r\ncode\rand\x00more\n".encode(), "a.txt") == Parsed(
        "Ünï\ncode\nand\ufffdmore\n", "", "text/plain"
    )


def test_a_markdown_file_has_a_title_and_headings() -> None:
    text = "Intro\n\n# Birds\nfly\n\n```\n# no heading\n```\n## Owls\nhoot\n\nFish\n====\nswim"
    parsed = parse(text.encode(), "a.md")
    assert (parsed.text, parsed.title, parsed.mime_type) == (text, "Birds", "text/markdown")
    assert sections(parsed) == [
        ("# Birds\nfly\n\n```\n# no heading\n```\n", None, ("Birds",)),
        ("## Owls\nhoot\n\n", None, ("Birds", "Owls")),
        ("Fish\n====\nswim", None, ("Fish",)),
    ]


def test_the_title_of_front_matter_comes_first() -> None:
    assert parse(b"---\ndate: 1\ntitle: 'Of birds'\n---\n# Other\n", "a.md").title == "Of birds"


HTML = """<!-- x --><!DOCTYPE html>
<html><head><title>Birds &amp; fish</title><style>p {}</style></head><body>
<nav>Menu</nav><script>x()</script><p hidden>Hidden</p>
<h1>Birds</h1><p>They   <b>f</b>ly<br>and sing.</p>
<ul><li>robins<ol><li>red</li><li>brown</li></ol></li><li><p>owls</p></li></ul>
<h2>Owls</h2>
<table><tr><th>Kind<th>Size</tr><tr><td>Barn|owl<td><p>35 cm</p></tr></table>
<pre>if x:
    fly()</pre>
<table role="presentation"><tr><td><p>Laid out</p><td><p>in cells</p></table>
</body></html>"""
HTML_TEXT = """# Birds

They fly
and sing.

- robins
  1. red
  2. brown
- owls

## Owls

| Kind | Size |
| --- | --- |
| Barn\\|owl | 35 cm |

```
if x:
    fly()
```

Laid out

in cells"""


def test_a_page_is_its_visible_text() -> None:
    parsed = parse(HTML.encode(), "a.html")
    assert (parsed.text, parsed.title, parsed.mime_type) == (
        HTML_TEXT,
        "Birds & fish",
        "text/html",
    )
    first, second = sections(parsed)
    assert first[2] == ("Birds",)
    assert first[0].endswith("- owls")
    assert second[0].startswith("## Owls")
    assert second[2] == ("Birds", "Owls")


def test_a_page_without_a_title_takes_its_first_heading() -> None:
    assert parse(b"<html><h2>Two</h2><h1>One</h1>", "").title == "One"


def test_a_page_tells_its_encoding() -> None:
    page = '<html><meta charset="koi8-r"><p>\u044d\u0442\u043e'
    assert parse(page.encode("koi8-r")).text == "\u044d\u0442\u043e"


def test_json_is_a_line_for_each_value() -> None:
    data = b'{"name": "Robin", "size": {"cm": 14, "in": null}, "eats": ["worms", 3, true], "x": []}'
    parsed = parse(data, "a.json")
    assert parsed.text == "name: Robin\nsize.cm: 14\neats: worms, 3, true"
    assert (parsed.title, parsed.mime_type) == ("Robin", "application/json")


def test_json_of_many_records_is_a_paragraph_for_each() -> None:
    data = b'[{"a": 1, "b": [{"c": "x"}, {"c": "y"}]}, {"a": 2}]'
    assert parse(data, "", "application/json").text == "a: 1\nb.c: x\nb.c: y\n\na: 2"


def test_json_lines_are_a_paragraph_each() -> None:
    parsed = parse(b'{"a": 1}\n\n{"a": "two"}\r\n"three"\n', "a.jsonl")
    assert parsed.text == "a: 1\n\na: two\nthree"
    assert parsed.mime_type == "application/x-ndjson"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_is_a_line_for_each_row_with_the_names_of_its_columns(delimiter: str) -> None:
    rows = ["Name,Age,Note", 'Ann,33,"likes\n birds"', "Bo,,"]
    data = "\n".join(rows).replace(",", delimiter).encode()
    parsed = parse(data, "a.csv")
    assert parsed.text == "Name: Ann; Age: 33; Note: likes birds\nName: Bo"
    assert (parsed.mime_type, parsed.sections) == ("text/csv", [])


def test_csv_without_names_of_columns_is_its_values() -> None:
    assert parse(b"1,2\n3,4\n", "a.csv").text == "1; 2\n3; 4"


def test_a_pdf_has_pages_and_bookmarks() -> None:
    data = make_pdf(
        [["First page.", "Second line."], ["Next."], [], ["Last."]],
        "Field guide",
        [("Birds", 0), ("Fish", 3)],
    )
    parsed = parse(data, "guide.pdf")
    assert (parsed.title, parsed.mime_type) == ("Field guide", "application/pdf")
    assert parsed.text == "First page.\nSecond line.\n\nNext.\n\nLast."
    assert sections(parsed) == [
        ("First page.\nSecond line.", 1, ("Birds",)),
        ("Next.", 2, ("Birds",)),
        ("Last.", 4, ("Fish",)),
    ]


def test_a_word_file_has_headings_lists_and_tables() -> None:
    parsed = parse(make_docx(), "a.docx")
    assert (parsed.title, parsed.mime_type) == ("Field guide", detect.DOCX)
    assert parsed.text == (
        "Field guide\n\nBefore all.\n\n# Birds\n\nRobins sing.\n\n- eats worms\n- eats berries\n\n"
        "## Owls\n\n| Kind | Size |\n| --- | --- |\n| Barn owl | 35 cm |"
    )
    assert [headings for _, _, headings in sections(parsed)] == [("Birds",), ("Birds", "Owls")]


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def word_file(body: str, **parts: str) -> bytes:
    return make_zip(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f'<r><r Id="1" Type="{RELATIONS}/officeDocument" '
            'Target="/word/main.xml"/></r>',
            "word/main.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>",
            "word/_rels/main.xml.rels": f'<r><r Id="1" Type="{RELATIONS}/styles" '
            f'Target="styles.xml"/><r Id="2" Type="{RELATIONS}/footnotes" Target="notes.xml"/></r>',
            **parts,
        }
    )


def test_a_word_file_is_read_in_boxes_controls_and_notes_and_not_where_deleted() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>".format
    body = (
        f"<w:sdt><w:sdtContent><w:p>{run('controlled')}</w:p></w:sdtContent></w:sdt>"
        f"<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins>{run('new')}</w:ins>"
        f"<w:r><w:tab/></w:r>{run('text')}</w:p>"
        f"<w:p>{run('outside')}<w:r><w:drawing><w:txbxContent><w:p>{run('boxed')}</w:p>"
        "</w:txbxContent></w:drawing></w:r></w:p>"
    )
    notes = f"<w:footnotes {WORD}><w:footnote><w:p>{run('noted')}</w:p></w:footnote></w:footnotes>"
    parsed = parse(word_file(body, **{"word/notes.xml": notes}))
    assert parsed.text == "controlled\n\nnew\ttext\n\noutside\n\nboxed\n\nnoted"


def test_a_heading_of_a_style_of_ones_own_is_a_heading() -> None:
    styles = (
        f'<w:styles {WORD}><w:style w:styleId="Mine"><w:basedOn w:val="H2"/></w:style>'
        '<w:style w:styleId="H2"><w:name w:val="heading 2"/></w:style></w:styles>'
    )
    body = '<w:p><w:pPr><w:pStyle w:val="Mine"/></w:pPr><w:r><w:t>Owls</w:t></w:r></w:p>'
    assert parse(word_file(body, **{"word/styles.xml": styles})).text == "## Owls"


def test_a_presentation_has_a_page_for_each_slide() -> None:
    parsed = parse(make_pptx(), "a.pptx")
    assert parsed.mime_type == detect.PPTX
    assert sections(parsed) == [
        ("# Plan\n\nCollect\nCompare\n\nSpeak slowly.", 1, ("Plan",)),
        ("# Result\n\n| Year | Count |\n| --- | --- |\n| 2025 | 7 |", 2, ("Result",)),
    ]


def test_a_spreadsheet_has_a_section_for_each_sheet() -> None:
    parsed = parse(make_xlsx(), "a.xlsx")
    assert (parsed.title, parsed.mime_type) == ("Register", detect.XLSX)
    assert sections(parsed) == [
        ("## People\n\nName: Ann; Age: 33\nName: Bo; Age: 4.5", None, ("People",)),
        ("## Notes\n\nOnly a note", None, ("Notes",)),
    ]


def test_a_book_has_its_chapters_in_reading_order() -> None:
    parsed = parse(make_epub(), "a.epub")
    assert (parsed.title, parsed.mime_type) == ("Two chapters", "application/epub+zip")
    assert sections(parsed) == [
        ("# Dawn\n\nThe sun rose.", None, ("Dawn",)),
        ("# Dusk\n\nIt set.", None, ("Dusk",)),
    ]


def test_a_message_has_headers_body_and_attached_messages() -> None:
    parsed = parse(make_eml(), "a.eml")
    assert (parsed.title, parsed.mime_type) == ("Grüße aus Köln", "message/rfc822")
    assert parsed.text == (
        "From: Ann <ann@example.org>\nTo: Bo <bo@example.org>\nSubject: Grüße aus Köln\n\n"
        "Plain body.\nAttachment: offer.pdf\n\n"
        "From: Cy <cy@example.org>\nSubject: Older\n\nThe first letter."
    )


def test_a_message_of_html_alone_is_read() -> None:
    data = b"Subject: x\nContent-Type: text/html; charset=latin-1\n\n<p>caf\xe9</p>"
    assert parse(data, "a.eml").text == "Subject: x\n\ncafé"


# --- What a file is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (make_pdf([["x"]]), detect.PDF),
        (make_docx(), detect.DOCX),
        (make_pptx(), detect.PPTX),
        (make_xlsx(), detect.XLSX),
        (make_epub(), detect.EPUB),
        (HTML.encode(), detect.HTML),
    ],
    ids=["pdf", "docx", "pptx", "xlsx", "epub", "html"],
)
@pytest.mark.parametrize("name", ["", "a.txt", "a.pdf", "a.docx"])
def test_the_bytes_decide_and_not_the_name(data: bytes, mime_type: str, name: str) -> None:
    assert parse(data, name, "application/octet-stream").mime_type == mime_type


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.epub", "a.png"])
def test_a_text_under_another_name_is_a_text(name: str) -> None:
    assert parse(b"plain words", name) == Parsed("plain words", "", "text/plain")


@pytest.mark.parametrize(
    ("name", "told", "mime_type"),
    [
        ("a.MD", None, "text/markdown"),
        ("a.md", "text/plain", "text/markdown"),
        ("", "text/markdown; charset=utf-8", "text/markdown"),
        ("a", "application/jsonlines", "application/x-ndjson"),
        ("a.py", None, "text/x-python"),
        ("a", "text/x-rst", "text/x-rst"),
        ("a", "image/png", "text/plain"),
        ("", None, "text/plain"),
    ],
)
def test_name_and_type_tell_texts_apart(name: str, told: str | None, mime_type: str) -> None:
    assert parse(b'{"a": 1}', name, told).mime_type == mime_type


def test_a_message_without_a_name_is_found() -> None:
    assert parse(make_eml()).mime_type == "message/rfc822"


# --- Encodings -------------------------------------------------------------------------------

TEXTS = {
    "utf-8": "naïve — 数据",
    "utf-8-sig": "naïve",
    "utf-16": "naïve 数据",
    "utf-16-le": "plain words",
    "utf-16-be": "plain words",
    "utf-32": "naïve",
    "latin-1": "El niño comió mañana; qué sé yo, acción",
    "cp1252": "“café” – déjà vu, 5 £",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "cp1251": "Привет мир",
    "koi8-r": "Это русский текст, и он длинный.",
    "shift_jis": "これは日本語のテキストです。",
    "euc_jp": "これは日本語のテキストです。",
    "iso2022_jp": "これは日本語のテキストです。",
    "gb18030": "这是一个中文文本。数据库很好。",
    "big5": "這是一個中文文本。資料庫很好。",
    "euc_kr": "이것은 한국어 텍스트입니다.",
}


@pytest.mark.parametrize(("encoding", "text"), TEXTS.items(), ids=TEXTS)
def test_the_encoding_is_found(encoding: str, text: str) -> None:
    assert parse(text.encode(encoding), "a.txt").text == text


# --- Limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"word " * 30, "a.txt"),
        (b"# a\n" * 30, "a.md"),
        (b"<html><p>" + b"word " * 30, "a.html"),
        (b"[" + b'"word word",' * 10 + b'""]', "a.json"),
        (b"a,b\n" + b"1,2\n" * 30, "a.csv"),
        (make_pdf([["word word word word"]] * 6), "a.pdf"),
    ],
    ids=["txt", "md", "html", "json", "csv", "pdf"],
)
def test_a_text_over_the_limit_is_refused(data: bytes, name: str) -> None:
    length = len(parse(data, name).text)
    assert len(parse(data, name, text_chars=length).text) == length
    with pytest.raises(TooLargeError, match=f"more than {length - 1} characters"):
        parse(data, name, text_chars=length - 1)


def test_an_archive_over_the_limits_is_refused() -> None:
    with pytest.raises(TooLargeError, match="unpacks to"):
        parse(make_docx(), unpacked_bytes=10_000)
    with pytest.raises(TooLargeError, match="entries"):
        parse(make_docx(), archive_entries=3)


@pytest.mark.parametrize("data", [b"", b" \n\t", b"\xef\xbb\xbf \n", make_pdf([[]])])
def test_a_file_without_text_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"empty|no text"):
        parse(data, "a.txt")


# --- Sections --------------------------------------------------------------------------------


def test_a_character_is_found_in_its_section() -> None:
    parsed = parse(make_pdf([["One."], ["Two."]]))
    pages = [section_at(parsed.sections, char) for char in (0, 3, 6, 9)]
    assert [page.page if page else None for page in pages] == [1, 1, 2, 2]
    assert section_at(parsed.sections, 5) is None  # between the pages
    assert section_at(parsed.sections, 10) is None
    assert section_at([], 0) is None
