"""CSV files that others wrote, checked before they are read: encoding, columns, length of rows and fields."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from foleylib.evaluation.remarks import listed

LONGEST = 10_000  # characters of a field


def checked(path: str | Path, columns: Sequence[str], remedy: str) -> str:
    """The text of a CSV file in UTF-8 whose rows all have the fields of its header, the `columns` among them.

    pandas would read rows that are too long by another index, and short ones with NaN. `remedy` ends each error.
    """
    text = _text(Path(path), remedy)
    rows = _rows(path, text, remedy)
    if not rows:
        raise ValueError(f"{path}: cannot be read as a CSV (it is empty); {remedy}")
    header = rows[0][1]
    if lacking := [column for column in columns if column not in header]:
        told = listed([name[:40] for name in header])
        raise ValueError(f"{path}: has no column {', '.join(lacking)} but {told}; {remedy}")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"{path}: has the column {', '.join(twice)} twice; {remedy}")
    faults = {
        f"rows have other than the {len(header)} fields of the header": [
            n for n, row in rows if len(row) != len(header)
        ],
        f"fields have more than {LONGEST} characters": [n for n, row in rows if max(map(len, row)) > LONGEST],
    }
    for what, lines in faults.items():
        if lines:
            raise ValueError(f"{path}: {what}, in line {listed(lines)}; {remedy}")
    return text


def lines(path: str | Path, remedy: str, **dialect) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file in UTF-8 that has no header, with their line numbers; `dialect` goes to `csv.reader`."""
    return _rows(path, _text(Path(path), remedy), remedy, **dialect)


def _rows(path: str | Path, text: str, remedy: str, **dialect) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as a CSV (line {reader.line_num}: {error}); {remedy}") from None


def _text(path: Path, remedy: str) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8; {remedy}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a CSV ({error.strerror}); {remedy}") from None
    if "\0" in text:
        raise ValueError(f"{path}: cannot be read as a CSV (character {text.index(chr(0))} is NUL); {remedy}")
    return text
