"""``springest report``: what became of a manifest, for people and in files, and its page in a real browser."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from playwright.async_api import Browser

from springest_async.sandbox import Mishap
from tests.pdfs import archive

from .browser import axe_violations
from .command import Ran, assert_no_key_in, connected, names, outcomes, posts, springest, springest_sandbox, table_of
from .servers.postgresql import Database

MIXED = {2: {"certification_id": "99"}, 3: {"certification_id": "3"}, 4: {"certification_id": "3"}}


async def _mixed(folder: Path, **changes: str | None) -> tuple[Path, dict[str, int]]:
    """Upload four rows, of which one is rejected, and one is in doubt because its certification is not shown.

    Return the manifest, and the sandbox's ids of the others by their files.
    """
    manifest = archive(folder, 4, changes=MIXED)
    async with springest_sandbox(mishap=iter([None, Mishap.DROP_AFTER_STORING]).__next__) as sandbox:
        # Without the other key, nobody knows before the POST that there is no certification 99.
        values = {"SPRINGEST_CERTIFICATIONS_API_KEY": None} | changes
        assert (await springest("upload", manifest, origin=sandbox.origin, **values)).code == 3
    ids = {
        f"{re.sub('[^0-9]', '', post.fields['email'])}.pdf": post.certificate_id
        for post in posts(sandbox, "stored")
        if post.certificate_id is not None
    }
    return manifest, ids


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


async def _report(manifest: Path, *options: str | Path, **changes: str | None) -> Ran:
    return await springest("report", manifest, *options, **changes)


async def _plant_doubts(folder: Path, count: int) -> Path:
    """Make a manifest whose rows are all in doubt: the journal says so, which is quicker than to send them."""
    manifest = archive(folder, 1, changes={1: {"certification_id": "3"}})
    async with springest_sandbox(mishap=iter([Mishap.DROP_AFTER_STORING]).__next__) as sandbox:
        await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
    with connected() as connection, connection.transaction():
        connection.execute(
            "WITH RECURSIVE numbers (n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
            " INSERT INTO manifest_rows (load, number, file, copy, fields, lookalike, certification_id, email,"
            " valid_from, state, reason, certificate) SELECT load, n, file, 1, fields, lookalike, certification_id,"
            " email, valid_from, state, reason, certificate FROM manifest_rows, numbers",
            (count + 1,),
        )
    return manifest


async def test_it_tells_people_what_became_of_a_manifest(tmp_path: Path) -> None:
    manifest, _ = await _mixed(tmp_path)
    ran = await _report(manifest)

    assert (ran.code, ran.err) == (3, "")
    assert table_of(ran.out) == outcomes(stored=2, rejected=1, in_doubt=1)
    assert re.search(r"4 POSTs: 2 stored, 1 rejected, 1 without a clear answer\.", ran.out)
    assert re.search(r"Sent from [-0-9: ]+ to [-0-9: ]+ UTC \(\d+ s\)\.", ran.out)
    assert "Answers: half of them within " in ran.out
    assert "\n1     rejected  certification_id: does not exist\n" in ran.out
    assert "The limit was kept, and nothing was stored twice: at most 4 POSTs in any 60 s" in ran.out
    assert "1 row in doubt: springest status lists them, and says what to do." in ran.out


async def test_the_csv_has_the_id_and_the_words_of_each_row(tmp_path: Path) -> None:
    manifest, ids = await _mixed(tmp_path)
    result = tmp_path / "result.csv"
    ran = await _report(manifest, "--csv", result)
    rows = _rows(result)

    assert f"All rows: {result}" in ran.out
    assert_no_key_in(result.read_text())
    assert result.stat().st_mode & 0o777 == 0o600
    assert [(row["row"], row["file"], row["email"]) for row in rows] == [
        (str(number + 1), f"{number}.pdf", f"employee{number}@example.org") for number in range(1, 5)
    ]
    assert Counter(row["outcome"] for row in rows) == Counter(["stored", "stored", "rejected", "in doubt"])
    for row in rows:
        assert row["tries"] == "1"
        assert row["request_id"]
        assert row["first_sent_utc"] == row["last_sent_utc"] != ""
        if row["outcome"] == "stored":
            assert int(row["springest_id"]) == ids[row["file"]]
            assert (row["http_status"], bool(row["answered_utc"])) == ("201", True)
        if row["outcome"] == "in doubt":
            assert (row["springest_id"], row["http_status"], row["answered_utc"]) == ("", "", "")
    assert (rows[1]["outcome"], rows[1]["http_status"]) == ("rejected", "400")
    assert "does not exist" in rows[1]["server_words"]
    assert "certification_id: does not exist" in rows[1]["reason"]


async def test_other_columns_and_formulas_are_kept_harmless(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    header, line = manifest.read_text().splitlines()
    manifest.write_text(f"{header};Team;reason\n{line};=HYPERLINK(1);x\n".replace(",", ";"))
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
    result = tmp_path / "result.csv"
    await _report(manifest, "--csv", result)
    with result.open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream, delimiter=";")  # as the manifest has it

    assert (row["Team"], row["reason (manifest)"], row["reason"]) == ("'=HYPERLINK(1)", "x", "")


async def test_rejected_rows_are_corrected_and_uploaded(tmp_path: Path) -> None:
    manifest, _ = await _mixed(tmp_path)
    failed = tmp_path / "to correct.csv"
    ran = await _report(manifest, "--failed", failed)
    (row,) = _rows(failed)

    assert f"1 row to correct: {failed}. Then run: springest upload '{failed}'\n" in ran.out
    assert (row["file"], row["certification_id"]) == ("2.pdf", "99")
    assert row["error"] == "certification_id: does not exist"
    failed.write_text(failed.read_text().replace(",99,", ",1,"))
    async with springest_sandbox() as sandbox:
        again = await springest("upload", failed, origin=sandbox.origin)
    assert (again.code, table_of(again.out)) == (0, outcomes(stored=1))


async def test_elsewhere_the_names_of_files_need_a_folder(tmp_path: Path) -> None:
    manifest, _ = await _mixed(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    ran = await _report(manifest, "--failed", other / "x.csv")

    assert "--files FOLDER (the folder that the names of the PDFs are relative to)" in ran.out


async def test_ids_of_people_need_their_list_again(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1, changes={1: {"certification_id": "99", "email": "41"}})
    manifest.write_text(manifest.read_text().replace("email", "user id"))
    (people := tmp_path / "people.csv").write_text("ID,Email\n41,jan@example.org\n42,piet@example.org\n")
    async with springest_sandbox() as sandbox:
        changes: dict[str, str | None] = {"SPRINGEST_CERTIFICATIONS_API_KEY": None}
        await springest("upload", manifest, "--users", people, origin=sandbox.origin, **changes)
        failed = tmp_path / "correct.csv"
        ran = await _report(manifest, "--failed", failed)
        assert f"Then run: springest upload {failed} --users FILE (the list of the people)" in ran.out
        failed.write_text(failed.read_text().replace(",99,", ",1,").replace(",41,", ",42,"))
        again = await springest("upload", failed, "--users", people, origin=sandbox.origin)

    assert (again.code, table_of(again.out)) == (0, outcomes(stored=1))
    assert [post.fields["email"] for post in posts(sandbox, "stored")] == ["piet@example.org"]


async def test_without_rejected_rows_there_is_no_manifest_of_them(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
    ran = await _report(manifest, "--failed", tmp_path / "failed.csv")

    assert ran.code == 0
    assert "No row was rejected or has failed" in ran.out
    assert not (tmp_path / "failed.csv").exists()


@pytest.mark.parametrize("option", ["--csv", "--failed", "--html"])
async def test_no_file_is_overwritten(option: str, tmp_path: Path) -> None:
    manifest, _ = await _mixed(tmp_path)
    taken = tmp_path / "taken"
    taken.write_text("precious")
    ran = await _report(manifest, option, taken)
    elsewhere = await _report(manifest, option, tmp_path / "nowhere" / "x")

    assert (ran.code, ran.out) == (2, "")
    assert f"{option} {taken}: this file exists already: name a new one, or delete it" in ran.err
    assert taken.read_text() == "precious"
    assert f"there is no folder {tmp_path / 'nowhere'}" in elsewhere.err
    assert names(tmp_path, ".*") == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--with-addresses"], "--with-addresses is about the page: give --html FILE, too"),
        (["--csv", "x", "--html", "x"], "--csv, --failed and --html need a file each"),
        (["--csv", "x.xlsx"], "the rows are written as a CSV: name it x.csv"),
    ],
)
async def test_options_that_do_not_fit_are_told(options: list[str], words: str, tmp_path: Path) -> None:
    ran = await _report(tmp_path / "certificates.csv", *options)

    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


async def test_a_manifest_that_was_never_loaded_has_no_report(tmp_path: Path) -> None:
    manifest, _ = await _mixed(tmp_path)
    ran = await _report(tmp_path / "another.csv")

    assert ran.code == 2
    assert "nothing of this manifest is in the journal" in ran.err
    manifest.unlink()
    assert (await _report(manifest)).code == 3  # its own report needs no manifest


async def test_what_was_forgotten_is_not_in_the_report(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
    await springest("journal", "forget", "--email", "employee2@example.org")
    result, page = tmp_path / "result.csv", tmp_path / "page.html"
    ran = await _report(manifest, "--csv", result, "--html", page, "--with-addresses")

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=2))
    assert [row["file"] for row in _rows(result)] == ["1.pdf", "3.pdf"]
    assert "employee2" not in result.read_text() + page.read_text()


async def test_a_migration_that_never_sent_has_a_report(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_API_KEY="wr0ng-key")
    with connected() as connection, connection.transaction():
        connection.execute("DELETE FROM attempts")
    page = tmp_path / "page.html"
    ran = await _report(manifest, "--html", page)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(waiting=2))
    assert "Nothing was sent for this manifest." in ran.out
    assert "Nothing was sent for this manifest." in page.read_text()


async def test_what_is_being_sent_is_not_in_doubt(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
    with connected() as connection, connection.transaction():
        connection.execute("UPDATE manifest_rows SET state = 'sending' WHERE number = 3")
    ran = await _report(manifest)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=1) | {"being sent": 1})


@pytest.mark.postgresql
async def test_a_journal_in_postgresql_has_the_same_report(tmp_path: Path, database: Database) -> None:
    manifest, ids = await _mixed(tmp_path, SPRINGEST_JOURNAL=database.url)
    result, page = tmp_path / "result.csv", tmp_path / "page.html"
    ran = await _report(manifest, "--csv", result, "--html", page, SPRINGEST_JOURNAL=database.url)

    assert (ran.code, table_of(ran.out)) == (3, outcomes(stored=2, rejected=1, in_doubt=1))
    assert "4 POSTs: 2 stored, 1 rejected, 1 without a clear answer." in ran.out
    assert {
        row["file"]: int(row["springest_id"]) for row in _rows(result) if row["springest_id"]
    }.items() <= ids.items()
    assert "Certificates sent a minute" in page.read_text()


# --- the page, in a browser ---


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light"), (360, "dark")])
async def test_the_page_fits_every_screen(width: int, scheme: str, tmp_path: Path, browser: Browser) -> None:
    manifest = await _plant_doubts(tmp_path, 1000)
    path = tmp_path / "page.html"
    assert (await _report(manifest, "--html", path)).code == 3
    asked: list[str] = []
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(path.as_uri())

    assert asked == [path.as_uri()]
    assert path.stat().st_size < 500_000
    assert await page.get_by_role("heading", level=1).inner_text() == "Upload of certificates.csv"
    assert await page.get_by_text("… and 800 other rows.").is_visible()
    rows = page.get_by_role("region", name="Rows that need a person, as a table")
    assert await rows.get_by_role("row").count() == 201
    if width == 360:  # what a person looks for is not beside the screen
        for cell in await rows.get_by_role("row").nth(1).get_by_role("cell").all():
            box = await cell.bounding_box()
            assert box is not None
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
    assert "example.org" not in await page.content()
    assert await page.evaluate("document.documentElement.scrollWidth") == width  # only tables scroll sideways
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 31)")


@pytest.mark.axe
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
async def test_axe_finds_nothing_wrong_with_the_page(scheme: str, width: int, tmp_path: Path, browser: Browser) -> None:
    manifest, _ = await _mixed(tmp_path)
    path = tmp_path / "page.html"
    await _report(manifest, "--html", path, "--with-addresses")
    assert_no_key_in(path.read_text())
    page = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    await page.goto(path.as_uri())

    assert await axe_violations(page) == []
