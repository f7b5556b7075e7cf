"""``springest template``: an empty manifest with an example, or one that is made from the names of files."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from springest_async.cli.console import argument, cell, say
from springest_async.cli.exit_codes import Exit
from springest_async.errors import ConfigurationError
from springest_async.manifest.csv_table import SEPARATORS
from springest_async.manifest.dates import DateOrder
from springest_async.manifest.name_pattern import NamePattern, PatternError
from springest_async.manifest.new_file import new_file
from springest_async.manifest.template import COLUMNS, EXAMPLE, Folder, Template
from springest_async.reports.numbers import count, number

_NAME = "certificates.csv"
_OTHER_WORKBOOKS = (".ods", ".xls", ".xlsb", ".xlsm", ".numbers")
_SHOWN = 3  # files of each kind of remark


def template(folder: Path | None, text: str | None, output: Path | None, dates: DateOrder | None, err: Console) -> Exit:
    """Write a manifest, and print what it has and what it lacks.

    Args:
        folder: of the PDFs, or a ZIP; None for an empty manifest with an example row.
        text: the pattern of their names, if they have one.
        output: the file to write; by default ``certificates.csv`` in the folder, or beside the ZIP.
        dates: what a date such as 05-06-2026 begins with, if the user has said so.
        err: where to print messages.

    Raises:
        ConfigurationError: the pattern is none, or the file exists already or cannot be written.
        ManifestError: the folder cannot be read.
    """
    beside = folder if folder is None or folder.is_dir() else folder.parent
    target = output or (beside or Path()) / _NAME
    if os.path.lexists(target):
        raise ConfigurationError(f"{target} exists already: name another file with --output")
    if target.suffix.lower() in _OTHER_WORKBOOKS:
        raise ConfigurationError(f"{target}: a template is a CSV or an XLSX: let its name end in .csv or .xlsx")
    if folder is None:
        if text is not None:
            raise ConfigurationError("a pattern needs the folder of the PDFs: springest template FOLDER --pattern …")
        _write(target, COLUMNS, [EXAMPLE])
        say(err, f"{target}: the names of the columns, and a row that shows what belongs in them.")
        _say_next(target, None, err)
        return Exit.STORED
    try:
        pattern = None if text is None else NamePattern.of(text)
    except PatternError as error:
        raise ConfigurationError(f"--pattern {text}: {error}") from None
    with err.status(cell(f"Looking for PDFs in {folder}")):
        found = Folder.list(folder)
    if not found.pdfs:
        others = f"; it has {_files(found.others)}" if found.others else ""
        raise ConfigurationError(f"there is no PDF in {folder} or its subfolders{others}")
    with err.status(cell(f"Making {target}")):
        made = Template.of(found.pdfs, pattern, dates)
        _write(target, made.columns, made.rows)
    _say_made(target, made, found, pattern, err)
    _say_next(target, folder, err)
    return Exit.STORED


def _write(target: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a workbook if the target is called so, else a CSV.

    Raises:
        ConfigurationError: it cannot be written.
    """
    write = _write_xlsx if target.suffix.lower() == ".xlsx" else _write_csv
    try:
        with new_file(target.parent) as file:
            write(file.stream, (columns, *rows))
            file.publish([target])
    except FileNotFoundError:
        raise ConfigurationError(f"{target} cannot be written: there is no such folder") from None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ConfigurationError(f"{target} cannot be written: {reason}") from None


def _write_csv(stream: IO[bytes], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV that a Dutch or German Excel opens right: ``;`` between cells, and UTF-8 with a byte order mark.

    A cell with any separator is quoted, so that another country's Excel cannot find the start of a cell in it.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    plain = csv.writer(text, delimiter=";")
    quoting = csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL)
    for row in rows:
        unsafe = any(separator in value for value in row for separator in SEPARATORS)
        (quoting if unsafe else plain).writerow(row)
    text.detach()


def _write_xlsx(stream: IO[bytes], rows: Iterable[Sequence[str]]) -> None:
    """Write a workbook of texts, in which Excel changes neither dates nor leading zeros.

    Raises:
        ConfigurationError: the extra that writes workbooks is not installed.
    """
    try:
        from springest_async.manifest.xlsx_rows import xlsx_rows  # noqa: PLC0415 # its dependency is in the extra "xlsx"
    except ModuleNotFoundError as error:
        if error.name != "xlsxwriter":
            raise
        raise ConfigurationError(
            "a workbook needs the extra “xlsx”: pip install 'springest-async[xlsx]', or name a .csv with --output"
        ) from None
    with xlsx_rows(stream) as writer:
        for row in rows:
            writer.writerow(row)


def _say_made(target: Path, made: Template, found: Folder, pattern: NamePattern | None, err: Console) -> None:
    rows = len(made.rows)
    say(err, f"{target}: {count(rows, 'row')}, one for each PDF.")
    empty = made.empty
    if whole := [column for column in made.columns if empty[column] < rows and column != "file"]:
        parts = [f"{column} ({number(empty[column])} empty)" if empty[column] else column for column in whole]
        say(err, f"Filled in from the names: {', '.join(parts)}.")
    if lacking := [column for column in made.columns if empty[column] == rows]:
        say(err, f"Empty, because no name says it: {', '.join(lacking)}.")
    if made.misfits:
        assert pattern is not None
        say(err, f"Names that do not fit {pattern.text}: {number(len(made.misfits))}. Their rows have the file alone.")
        _say_some(err, [f"{file}: {reason}" for file, reason in made.misfits])
    if made.unclear:
        say(err, f"Cells left empty, because the name does not say them for certain: {number(len(made.unclear))}.")
        _say_some(err, [f"{file}, {column}: {ways}" for file, column, ways in made.unclear])
    if found.others:
        say(err, f"Left out, because they do not end in .pdf: {_files(found.others)}.")
    if found.unreadable:
        say(err, f"Left out, because they cannot be read or have a damaged name: {_files(found.unreadable)}.")


def _say_next(target: Path, folder: Path | None, err: Console) -> None:
    elsewhere = folder is not None and not _is_same(folder, target.parent)
    files = f" --files {argument(folder)}" if elsewhere and folder is not None else ""
    first = "Replace that row" if folder is None else "Fill in what is empty (valid_until, where it is required)"
    say(err, f"{first}, then: springest check {argument(target)}{files}")


def _say_some(err: Console, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        say(err, f"  {line}")
    if len(lines) > _SHOWN:
        say(err, f"  … and {number(len(lines) - _SHOWN)} more")


def _files(names: Sequence[str]) -> str:
    more = f" and {number(len(names) - _SHOWN)} more" if len(names) > _SHOWN else ""
    return f"{count(len(names), 'file')} ({', '.join(names[:_SHOWN])}{more})"


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
