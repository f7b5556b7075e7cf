"""How a manifest is to be read, as far as somebody says so: what its columns, dates, people and certifications are."""

from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from springest_async.manifest.certifications import Certifications
from springest_async.manifest.dates import DateOrder
from springest_async.manifest.users import Users


@frozen(kw_only=True)
class Reading:
    """How a manifest is to be read, as far as somebody says so.

    Attributes:
        dates: what dates with slashes begin with. Without it, each column of dates must show it: by some day over 12,
            and none that contradicts.
        sheet: the name of the sheet, if a workbook has several.
        columns: titles of columns by the columns of ours that they are, such as ``{"email": "E-mail adres"}``; a text
            with titles in braces, such as ``"{Name}.pdf"``, is made anew from each row.
        files: the folder or the ZIP that the files are in; without it, they are beside the manifest.
        fix_names: whether a file whose name is written otherwise is taken, if there is exactly one.
        users: who is meant by an id, an external id or a name.
        certification: the certification of all rows, by its id, name or code; empty if each row names its own.
        certifications: which certification is meant by a name or a code.
    """

    dates: DateOrder | None = None
    sheet: str | None = None
    columns: Mapping[str, str] = field(factory=dict)
    files: Path | None = None
    fix_names: bool = False
    users: Users | None = None
    certification: str = ""
    certifications: Certifications | None = None
