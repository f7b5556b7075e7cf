"""The commands of ``springest``, with their options and help."""

from collections.abc import Coroutine, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from springest_async.cli.console import Format, say, say_error, to_help, to_stderr, to_stdout
from springest_async.cli.exit_codes import Exit
from springest_async.cli.machine_options import MachineOptions
from springest_async.cli.reading import ReadingOptions
from springest_async.cli.stop_options import StopOptions

app = App(
    name="springest",
    help="Upload certificates to Springest, and list those that are there.",
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # which would leave out the end of a JSON log
)

journal = App(name="journal", help="Show where the journal is, erase personal data from it, or trust its server.")
app.command(journal)

_FormatOption = Annotated[Format, Parameter(name="--format")]
_Counting = Literal["fixed", "first-hit", "elastic", "sliding", "bucket", "paced"]
_DatesOption = Annotated[Literal["dmy", "mdy"] | None, Parameter(name="--dates", negative="")]
_AS_IT_IS = ReadingOptions()
_WHEN_DONE = StopOptions()
_NO_MACHINES = MachineOptions()
_JournalOption = Annotated[str | None, Parameter(name="--journal")]


@app.command(help_epilogue="")
def upload(
    manifest: Path,
    /,
    *,
    reading: ReadingOptions = _AS_IT_IS,
    yes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    skip_faulty: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    skip_listed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    stop: StopOptions = _WHEN_DONE,
    machines: MachineOptions = _NO_MACHINES,
    where: _JournalOption = None,
) -> Exit:
    """Upload the certificates in a manifest; run the same command again to continue after an interruption.

    The manifest is a CSV or a workbook (XLSX, XLS, ODS) with the columns `file`, `certification_id`, `email`,
    `valid_from`, and optionally `valid_until` and `conversion_id`, or other names of these. It is checked first, as
    `springest check` does; if there are faults, nothing is sent. A journal records everything that is sent, so that no
    certificate is sent twice, whatever the manifest is called and wherever it lies. Several runs may share the work.
    Rows that are not stored are written to a new manifest beside the first.

    Example: `springest upload certificates.csv`

    Args:
        manifest: The CSV or workbook.
        reading: How to read it.
        yes: Do not wait five seconds when there are warnings.
        skip_faulty: Send the rows that have no faults, and write the others to the file of failed rows.
        skip_listed: Leave out the rows that Springest lists already (the same person, certification and dates).
        stop: When to stop by itself.
        machines: What machines are told.
        where: A file on a disk of this machine, or `postgresql://…`; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.stops import Stops
    from springest_async.cli.upload import UploadOptions
    from springest_async.cli.upload import upload as upload_manifest

    async def go() -> Exit:
        options = UploadOptions(
            stops=Stops(stop),
            journal=where,
            yes=yes,
            skip_faulty=skip_faulty,
            skip_listed=skip_listed,
            machines=machines,
        )
        return await upload_manifest(manifest, reading, options, to_stdout(), to_stderr())

    return _go(go(), failed=Exit.USAGE)


@app.command(help_epilogue="")
def template(
    folder: Path | None = None,
    /,
    *,
    pattern: str | None = None,
    output: Path | None = None,
    dates: _DatesOption = None,
) -> Exit:
    """Make a manifest: an empty one with an example row, or one with a row for each PDF of a folder or a ZIP.

    A pattern says what the names of the PDFs mean: `{certification_id}`, `{email}`, `{valid_from}`, `{valid_until}`,
    `{user_id}`, `{user}`, `{certification}` and `{conversion_id}` fill their columns, and any other `{name}` stands for
    some text that is not sent. What a name does not say for certain stays empty. No file is ever overwritten.

    Example: `springest template diplomas --pattern "{certification_id}_{email}_{valid_from}.pdf"`

    Args:
        folder: The folder of the PDFs, with its subfolders, or a ZIP; without it, the manifest is empty.
        pattern: What the names of the PDFs mean; with slashes, those of their folders too.
        output: The file to make, a CSV or, if its name ends in `.xlsx`, a workbook; by default `certificates.csv` in
            the folder, or beside the ZIP.
        dates: What dates such as 05-06-2026 in the names begin with: the day (`dmy`) or the month (`mdy`). Not needed
            where some day over 12 shows it.
    """
    from springest_async.cli.template import template as make_template

    async def go() -> Exit:
        return make_template(folder, pattern, output, dates, to_stderr())

    return _go(go(), failed=Exit.USAGE)


@app.command(help_epilogue="")
def check(
    manifest: Path,
    /,
    *,
    reading: ReadingOptions = _AS_IT_IS,
    findings: Path | None = None,
    form: Annotated[Literal["table", "json"], Parameter(name="--format")] = "table",
    strict: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    skip_listed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    where: _JournalOption = None,
) -> Exit:
    """Check a manifest and its PDFs, and show what an upload would do and how long it takes. It sends nothing.

    A manifest is a CSV or a workbook (XLSX, XLS, ODS) with a row for each certificate: the name of its PDF (`file`),
    the employee (`email`), the certification (`certification_id`, or its name in `certification`), and the first and
    last day on which it is valid (`valid_from`, `valid_until`). Many other names of these columns are known, in four
    languages; `--map` names the rest. `springest template` makes an example. Workbooks need the extra `xlsx`:
    `pip install 'springest-async[cli,xlsx]'`.

    Each finding is one of three:

    - a fault: this row cannot be sent, and `springest upload` sends nothing before it is corrected or left out;
    - a warning: the row can be sent, but look at it, because it may not be what you mean;
    - a note: nothing to worry about.

    It works without a network, keys or a journal, and says what it could not check. It asks Springest only for the list
    of its certifications (`SPRINGEST_CERTIFICATIONS_API_KEY`) and, with `--skip-listed`, of its certificates
    (`SPRINGEST_API_KEY`); `SPRINGEST_HOST` says which Springest: `nl` (the default), `be`, `de`, `uk` or
    `com`. If `certifications.csv` lies beside the manifest (with columns ID and Name or Code), its names and codes of
    certifications are known too.

    The exit code is 0, also with warnings; 2 with faults, or if `--skip-listed` cannot ask
    Springest; 4 if Springest refuses the key for that.

    Example: `springest check certificates.csv --findings findings.csv`

    Args:
        manifest: The manifest.
        reading: How to read it.
        findings: A new CSV for all findings by row. Without it, the first of each kind are shown.
        form: How to show the result: as a text (`table`), or as JSON for a script.
        strict: Warnings are faults: the exit code is 2.
        skip_listed: Also find the rows that Springest lists already (the same person, certification and dates), for
            instance because somebody has entered them by hand. It says first how many requests that takes.
        where: The journal that knows what was stored before; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.check import CheckOptions
    from springest_async.cli.check import check as check_rows

    options = CheckOptions(journal=where, findings=findings, form=form, strict=strict, skip_listed=skip_listed)
    return _go(check_rows(manifest, reading, options, to_stdout(), to_stderr()), failed=Exit.USAGE)


@app.command(help_epilogue="")
def status(
    manifest: Path | None = None,
    /,
    *,
    watch: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    form: Annotated[Literal["table", "json"], Parameter(name="--format")] = "table",
    serve: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    port: Annotated[int, Parameter(show_default=False)] = 0,
    bind: str | None = None,
    password_file: Path | None = None,
    where: _JournalOption = None,
) -> Exit:
    """Show the state of all uploads, or of one, also while it runs, with its rows in doubt.

    With `--serve`, a page shows all uploads in a browser of this machine: how far they are, and what waits for a
    person, with buttons to pause, to resume and to answer for rows in doubt. Other machines see it only with `--bind`.

    Example: `springest status certificates.csv --watch`

    Args:
        manifest: The manifest, which may have been moved or deleted since; without it, all are listed.
        watch: Show where it stands until it is done, until only rows in doubt are left, or until Ctrl-C, wherever it
            runs: in a terminal as `upload` does, else a line now and then. `ACCESSIBLE=1` or `NO_COLOR=1` in the
            environment asks for lines, too.
        form: As tables, or as JSON for a script: one object, or a list of all.
        serve: Serve a page about all uploads until Ctrl-C, and print its address.
        port: The port of the page; by default any free one.
        bind: The address of this machine at which others see the page (`0.0.0.0` for all of them), over plain HTTP.
        password_file: A file with the password of the page, which `--bind` needs; one line of at least 12 characters.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.status import status as show_status

    if not (serve or port or bind or password_file):
        return _go(show_status(manifest, where, to_stdout(), form=form, watch=watch))

    from springest_async.cli.serve import ServeOptions
    from springest_async.cli.serve import serve as serve_page
    from springest_async.errors import ConfigurationError

    async def go() -> None:
        if not serve:
            raise ConfigurationError("--port, --bind and --password-file go with --serve")
        if manifest is not None or form != "table" or watch:
            raise ConfigurationError(
                "--serve shows all uploads on a page: leave out the manifest, --format and --watch"
            )
        await serve_page(where, ServeOptions(port=port, bind=bind, password_file=password_file), to_stdout())

    return _go(go())


@app.command(help_epilogue="")
def pause(manifest: Path, /, *, where: _JournalOption = None) -> Exit:
    """Pause all uploads of a manifest, on any machine, until `springest resume`.

    Within seconds nothing more is sent. Uploads in progress are finished, rows in doubt are still looked up, and a
    `springest upload` that is started meanwhile waits, too.

    Example: `springest pause certificates.csv`

    Args:
        manifest: The manifest.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.pause import pause as pause_migration

    return _go(pause_migration(manifest, where, to_stdout()))


@app.command(help_epilogue="")
def resume(manifest: Path, /, *, where: _JournalOption = None) -> Exit:
    """Resume the uploads of a manifest after `springest pause`, on all machines.

    Example: `springest resume certificates.csv`

    Args:
        manifest: The manifest.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.pause import resume as resume_migration

    return _go(resume_migration(manifest, where, to_stdout()))


@app.command(help_epilogue="")
def report(
    manifest: Path,
    /,
    *,
    csv: Path | None = None,
    failed: Path | None = None,
    html: Path | None = None,
    with_addresses: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    where: _JournalOption = None,
) -> Exit:
    """Show what became of a manifest, and write it to files: all rows, those to correct, or a page for a mail.

    It is read from the journal, so it works during and after an upload and from any machine that shares the journal;
    the manifest may be gone. No file is ever overwritten. The exit code is that of `springest status`.

    Example: `springest report certificates.csv --csv result.csv --html report.html`

    Args:
        manifest: The manifest, which may have been moved or deleted since.
        csv: A new CSV of all rows, with their outcome, Springest's id, times, tries and what the server said.
        failed: A new manifest (CSV) of the rejected and failed rows with their reasons, to correct and upload. It has
            the columns and titles of the manifest, and dates such as 2026-01-31; what only an option explains gets our
            name of the column. Names of people and certifications are looked up again, so it needs the same `--users`.
        html: A new page with pictures, without scripts and of at most 500 kB. It needs the extra `report`:
            `pip install 'springest-async[cli,report]'`.
        with_addresses: Show e-mail addresses in the page; without it, none is in it.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.report import ReportOptions
    from springest_async.cli.report import report as make_report

    options = ReportOptions(csv=csv, failed=failed, html=html, with_addresses=with_addresses, journal=where)
    return _go(make_report(manifest, options, to_stdout(), to_stderr()))


@app.command(help_epilogue="")
def audit(
    manifest: Path,
    /,
    *,
    form: Annotated[Literal["table", "json"], Parameter(name="--format")] = "table",
    where: _JournalOption = None,
) -> Exit:
    """Show whether an upload has kept the limit, and whether anything may be stored twice.

    Every POST of the journal with the same host and key counts, from the first to the last of this manifest, whatever
    manifest it was for: the most in any 60 seconds, by our clock and by that of the server. The exit code is 0; or 6 if
    there were more than allowed, or a certificate may be stored twice.

    Example: `springest audit certificates.csv`

    Args:
        manifest: The manifest.
        form: As a text, or as JSON for a script.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.audit import audit as audit_migration

    return _go(audit_migration(manifest, where, form, to_stdout()))


@app.command(help_epilogue="")
def resolve(
    manifest: Path,
    /,
    *,
    row: Annotated[tuple[int, ...], Parameter(negative="", show_default=False)] = (),
    every: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    stored: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    send_again: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    where: _JournalOption = None,
) -> Exit:
    """Decide about rows in doubt, after looking them up at Springest.

    Example: `springest resolve certificates.csv --row 17 --row 23 --stored`

    Args:
        manifest: The manifest.
        row: The number of a row in doubt, as in `springest status`; may be repeated.
        every: All rows in doubt.
        stored: Springest has them: they are never sent again.
        send_again: Springest does not have them: the next `springest upload` sends them. With `--row`, a rejected row
            can be sent again too.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.status import resolve as decide
    from springest_async.errors import ConfigurationError
    from springest_async.journal.records import State

    async def go() -> None:
        if bool(row) == every:
            raise ConfigurationError("give the rows: --row N (may be repeated), or --all")
        if stored == send_again:
            raise ConfigurationError("give either --stored or --send-again")
        state: Literal[State.STORED, State.WAITING] = State.STORED if stored else State.WAITING
        await decide(manifest, where, None if every else row, state, to_stdout())

    return _go(go())


@app.command(help_epilogue="")
def reconcile(
    manifest: Path,
    /,
    *,
    form: _FormatOption = "table",
    repair: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    yes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    where: _JournalOption = None,
) -> Exit:
    """Compare an upload with what Springest lists, and say what to do about each difference.

    It finds what is missing at Springest, has other dates, is there twice, is there and was not sent, or is there
    although its row is not stored. Springest lists the certificates of verified certifications only, so what is stored
    for another certification cannot be seen. It says first how many requests it takes.

    The exit code is 0 if each row is stored and Springest shows it, 6 if something differs, and 1 if nothing does but
    some rows are not stored or could not be compared.

    Example: `springest reconcile certificates.csv`

    Args:
        manifest: The manifest, which may have been moved or deleted since.
        form: A summary with the first rows of each kind, all rows as CSV, or what is not in order as JSON, which
            names no person and no file.
        repair: Put what is certainly missing back to waiting, after a question, so that the next `springest upload`
            sends it once more. Springest is asked for each of these certificates again before.
        yes: Do not ask.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.reconcile import ReconcileOptions
    from springest_async.cli.reconcile import reconcile as compare

    options = ReconcileOptions(journal=where, form=form, repair=repair, yes=yes)
    return _go(compare(manifest, options, to_stdout(), to_stderr()))


@journal.command(help_epilogue="")
def info(*, where: _JournalOption = None) -> Exit:
    """Show where the journal is, how large it is, and what it holds.

    Example: `springest journal info`

    Args:
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.journal import info as journal_info

    return _go(journal_info(where, to_stdout()))


@journal.command(help_epilogue="")
def forget(
    manifest: Path | None = None,
    /,
    *,
    older_than: str | None = None,
    email: str | None = None,
    where: _JournalOption = None,
) -> Exit:
    """Erase what identifies people, and keep what prevents that a certificate is sent again.

    Rows that wait, are being sent or are in doubt are kept. What another manifest names too stays until that is
    forgotten. Exit code 1 says that something old was kept.

    Example: `springest journal forget --older-than 1y`

    Args:
        manifest: Of this manifest.
        older_than: Of all uploads that have not changed for so many years, months or days: `1y`, `6m`, `30d`.
        email: Of one person, in all uploads.
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.journal import forget as forget_people

    return _go(forget_people(manifest, older_than, email, where, to_stdout()))


@journal.command(help_epilogue="")
def trust(*, where: _JournalOption = None) -> Exit:
    """Confirm that another PostgreSQL server under the same address lacks nothing of what was sent.

    Uploads stop when a standby was promoted or a backup restored: it may lack what was sent last, which would be sent
    twice. Use this only when its administrator is sure that it lacks nothing. Uploads go on some minutes later.

    Example: `springest journal trust`

    Args:
        where: Where the journal is; by default as `SPRINGEST_JOURNAL` says.
    """
    from springest_async.cli.journal import trust as trust_server

    return _go(trust_server(where, to_stdout()))


@app.command(help_epilogue="")
def certificates(
    *,
    email: str | None = None,
    certification_id: int | None = None,
    created_from: date | None = None,
    form: _FormatOption = "table",
) -> Exit:
    """List the certificates that Springest has verified.

    Example: `springest certificates --created-from 2026-01-01 --format json`

    Args:
        email: Only those of this employee.
        certification_id: Only those for this certification.
        created_from: Only those created on or after this date (2026-12-31).
        form: A table, JSON or CSV.
    """
    from springest_async.cli.environment import springest_for_certificates
    from springest_async.cli.lists import show
    from springest_async.records import Certificate

    async def go() -> None:
        async with springest_for_certificates() as springest:
            found = springest.certificates(email=email, certification_id=certification_id, created_from=created_from)
            await show(Certificate, found, form, to_stdout())

    return _go(go())


@app.command(help_epilogue="")
def certifications(*, name: str | None = None, form: _FormatOption = "table") -> Exit:
    """List the verified certifications, with the ids for the manifest.

    Example: `springest certifications --format csv`

    Args:
        name: Only those with this name.
        form: A table, JSON or CSV.
    """
    from springest_async.cli.environment import springest_for_certifications
    from springest_async.cli.lists import show
    from springest_async.records import Certification

    async def go() -> None:
        async with springest_for_certifications() as springest:
            await show(Certification, springest.certifications(name=name), form, to_stdout())

    return _go(go())


@app.command(help_epilogue="")
def sandbox(*, port: int = 0, limit: int = 30, window: _Counting = "sliding") -> Exit:
    """Run a local Springest to develop against, until Ctrl-C; then print a summary.

    Example: `springest sandbox --port 8080 --window fixed`

    Args:
        port: The port on 127.0.0.1; by default any free one.
        limit: How many POSTs a minute it accepts.
        window: How it counts a minute; Springest does not document this.
    """
    from springest_async.cli.sandbox import serve

    return _go(serve(port=port, limit=limit, window=window, out=to_stdout()))


@app.command(help_epilogue="")
def demo() -> Exit:
    """Watch a whole migration on this machine: a sandbox, 45 PDFs, one upload, and what the server has counted.

    It takes a little over a minute, because the limit is 30 certificates a minute.

    Example: `springest demo`
    """
    try:
        from springest_async.cli.demo import demo as show_demo  # its dependencies are in the extra "demo"
    except ModuleNotFoundError as error:
        if error.name not in ("fpdf", "PIL"):
            raise
        say(to_stderr(), "The demo needs the extra “demo”: pip install 'springest-async[demo]'")
        return Exit.USAGE
    return _go(show_demo(to_stdout()))


@app.command(help_epilogue="")
def bench(
    *, count: int | None = None, size: str = "50KB", concurrency: int = 8, limit: Literal["on", "off"] = "on"
) -> Exit:
    """Measure how fast uploads are on this machine, and what bounds them.

    The certificates are invented, so they go to a sandbox that it starts, or to a server on this machine if
    `SPRINGEST_HOST` names one. It does what `springest upload` does, with a journal of its own beside yours. What
    bounds it is the limit, the server, the network, the disk or the client.

    Example: `springest bench --count 2000 --size 500KB --limit off`

    Args:
        count: How many uploads; by default 60 with the limit, which take a minute, and 1000 without.
        size: Of each PDF: `50KB`, `5MB`.
        concurrency: How many uploads are in flight at once.
        limit: Whether at most 30 POSTs leave in any 60 s.
    """
    from springest_async.cli.bench import Plan, size_of
    from springest_async.cli.bench import bench as measure

    async def go() -> Exit:
        limited = limit == "on"
        plan = Plan(
            count=(60 if limited else 1000) if count is None else count,
            size=size_of(size),
            concurrency=concurrency,
            limited=limited,
        )
        return await measure(plan, to_stdout(), to_stderr())

    return _go(go())


def run_command(arguments: Sequence[str]) -> int:
    """Run a command, and return its exit code."""
    try:
        code: int | None = app(
            arguments, console=to_help(), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        say_error(str(error))  # which makes control characters harmless, as cyclopts does not
        return Exit.USAGE
    return code or Exit.STORED


def _go(command: Coroutine[Any, Any, Exit | None], *, failed: Exit = Exit.NOT_ALL) -> Exit:
    import asyncio
    import logging

    from springest_async.cli.exits import exit_of_error, explained
    from springest_async.cli.signals import run_interruptibly
    from springest_async.errors import SpringestError

    # Do not print the retries of a list; if they fail in the end, the error is printed.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    try:
        return run_interruptibly(command) or Exit.STORED
    except SpringestError as error:
        say_error(explained(error))
        return exit_of_error(error, failed)
    except asyncio.CancelledError:
        return Exit.INTERRUPTED
