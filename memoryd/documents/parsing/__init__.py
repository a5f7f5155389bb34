"""Files of many formats: bytes → text, title, and where pages and headings are. No I/O.

`files.parse_file` is the way in. The parsers meet hostile files, so memoryd calls it in a process
apart (`memoryd.parsers`).
"""
