"""Lists as a table, JSON and CSV."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import attrs
import pytest
from rich.console import Console

from springest_async import Certificate, Certification, User
from springest_async.cli.console import Format
from springest_async.cli.lists import show

JAN = Certificate(
    id=1,
    certification_id=7,
    name="VCA, “Basis”",
    description="twee\nregels",
    valid_from=date(2026, 1, 31),
    valid_until=date(2031, 1, 31),
    status="verified",
    created_at=datetime(2026, 2, 1, 12, 30, tzinfo=UTC),
    user=User(email="zoë@example.org", external_id="E-1"),
)
BARE = Certificate(id=2, certification_id=8, valid_from=date(2026, 1, 31))
FIRST_AID = Certification(id=7, name="[bold]EHBO[/bold]", description=None, requires_valid_until=True)
CERTIFICATE_COLUMNS = [
    "id",
    "certification_id",
    "valid_from",
    "name",
    "description",
    "valid_until",
    "status",
    "created_at",
    "user_email",
    "user_external_id",
]


async def shown(
    form: Format,
    kind: type[Certificate | Certification],
    *records: Certificate | Certification,
    terminal: bool = False,
    width: int = 400,
) -> str:
    async def listed() -> AsyncIterator[Certificate | Certification]:
        for record in records:
            yield record

    out = io.StringIO()
    await show(kind, listed(), form, Console(file=out, width=width, force_terminal=terminal))
    return out.getvalue()


async def test_a_table_leaves_out_nothing_however_narrow_it_is() -> None:
    table = await shown("table", Certificate, JAN, width=60)

    columns = list(zip(*(line.split("│") for line in table.splitlines() if "│" in line), strict=True))
    assert "zoë@example.org" in ["".join(part.strip() for part in column) for column in columns]
    assert "…" not in table


async def test_json_is_json_with_all_that_is_known() -> None:
    assert json.loads(await shown("json", Certificate, JAN, BARE)) == [
        {
            "id": 1,
            "certification_id": 7,
            "valid_from": "2026-01-31",
            "name": "VCA, “Basis”",
            "description": "twee\nregels",
            "valid_until": "2031-01-31",
            "status": "verified",
            "created_at": "2026-02-01T12:30:00+00:00",
            "user": {"email": "zoë@example.org", "external_id": "E-1"},
        },
        {
            "id": 2,
            "certification_id": 8,
            "valid_from": "2026-01-31",
            "name": None,
            "description": None,
            "valid_until": None,
            "status": None,
            "created_at": None,
            "user": None,
        },
    ]


async def test_json_has_a_record_a_line_and_letters_unescaped() -> None:
    lines = (await shown("json", Certificate, JAN, BARE)).splitlines()

    assert (lines[0], lines[-1], len(lines)) == ("[", "]", 4)
    assert "zoë@example.org" in lines[1]


async def test_json_of_nothing_is_an_empty_list() -> None:
    assert json.loads(await shown("json", Certification)) == []


async def test_csv_has_a_column_for_each_thing_of_the_user() -> None:
    rows = list(csv.reader(io.StringIO(await shown("csv", Certificate, JAN, BARE), newline="")))

    assert rows == [
        CERTIFICATE_COLUMNS,
        [
            "1",
            "7",
            "2026-01-31",
            "VCA, “Basis”",
            "twee\nregels",
            "2031-01-31",
            "verified",
            "2026-02-01T12:30:00+00:00",
            "zoë@example.org",
            "E-1",
        ],
        ["2", "8", "2026-01-31", "", "", "", "", "", "", ""],
    ]


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (Certificate, ",".join(CERTIFICATE_COLUMNS)),
        (Certification, "id,name,description,requires_valid_until"),
    ],
)
async def test_csv_of_nothing_is_its_header(kind: type[Certificate | Certification], header: str) -> None:
    assert (await shown("csv", kind)).splitlines() == [header]


async def test_a_certification_in_csv() -> None:
    assert (await shown("csv", Certification, FIRST_AID)).splitlines()[1:] == ["7,[bold]EHBO[/bold],,True"]


async def test_a_table_shows_what_the_server_says_as_it_is() -> None:
    text = await shown("table", Certification, FIRST_AID)

    assert "[bold]EHBO[/bold]" in text
    assert all(column in text for column in ("id", "name", "description", "requires_valid_until"))


async def test_a_table_moves_no_cursor() -> None:
    text = await shown("table", Certification, attrs.evolve(FIRST_AID, name="\x1b[2JEHBO\x9b2J"))

    assert " [2JEHBO 2J" in text
    assert not {"\x1b", "\x9b"} & set(text)


DOES = "René\x1b[2J\x7f\x9b2J\u2028no\u202eon\u2066\u200f\u061c"  # what it does to a terminal is not to show it
SHOWN = "René [2J  2J no on   "


async def test_json_escapes_control_characters() -> None:
    text = await shown("json", Certification, attrs.evolve(FIRST_AID, name=DOES))

    assert json.loads(text)[0]["name"] == DOES
    assert text.replace("\n", "").isprintable()
    assert "René\\u001b[2J\\u007f\\u009b2J\\u2028no\\u202eon" in text


@pytest.mark.parametrize("terminal", [False, True])
async def test_csv_has_control_characters_except_in_a_terminal(terminal: bool) -> None:
    record = attrs.evolve(FIRST_AID, name=DOES, description="two\nlines")
    text = await shown("csv", Certification, record, terminal=terminal)

    (row,) = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert row[1:3] == ([SHOWN, "two lines"] if terminal else [DOES, "two\nlines"])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+31 6", "'+31 6"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("\tx", "'\tx"),
        ("＝1", "'＝1"),  # noqa: RUF001 # in full width, as Japanese spreadsheets take it
        ('"=1', "'\"=1"),
        ("x;=1", "x;'=1"),
        ("EHBO - herhaling (A+B)", "EHBO - herhaling (A+B)"),
        ("'s-Hertogenbosch", "'s-Hertogenbosch"),
    ],
)
async def test_csv_has_no_cell_that_a_spreadsheet_would_run(name: str, written: str) -> None:
    text = await shown("csv", Certification, attrs.evolve(FIRST_AID, name=name, description=name))

    (row,) = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert row == ["7", written, written, "True"]


async def test_a_table_has_a_row_for_each_record() -> None:
    text = await shown("table", Certificate, JAN, BARE)

    assert all(column in text for column in CERTIFICATE_COLUMNS)
    assert "zoë@example.org" in text
    assert "│ 2  │ 8 " in text


async def test_csv_is_written_as_the_records_come() -> None:
    """A list of a million takes no memory, and whoever reads it need not wait for its end."""
    out = io.StringIO()

    async def listed() -> AsyncIterator[Certificate | Certification]:
        yield JAN
        assert "VCA" in out.getvalue()
        yield BARE

    await show(Certificate, listed(), "csv", Console(file=out))

    assert len(list(csv.reader(io.StringIO(out.getvalue(), newline="")))) == 3


@pytest.mark.parametrize(("form", "encoding"), [("json", "ascii"), ("csv", "latin-1"), ("csv", "utf-16")])
async def test_data_for_programs_is_utf_8(form: Format, encoding: str) -> None:
    async def listed() -> AsyncIterator[Certificate | Certification]:
        yield JAN

    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="")
    await show(Certificate, listed(), form, Console(file=stream))
    stream.flush()

    assert "zoë@example.org" in raw.getvalue().decode("utf-8")
