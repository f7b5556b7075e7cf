"""A report as a page: what it tells, and what it must never contain."""

import re
from html.parser import HTMLParser

import attrs
import pytest

from springest_async.journal.attempts import Double, SentAgain
from springest_async.journal.doubts import DoubtfulRows
from springest_async.journal.history import RowHistory
from springest_async.journal.records import Reason, State
from springest_async.reports import html
from springest_async.reports.audit import Peak
from springest_async.reports.summary import Summary

from .summaries import BEGAN, audit_of, full_summary, never_sent, row, status_of, summary_of

DOUBTS = status_of(stored=100, rejected=30, failed=20, in_doubt=1000, waiting=9, sending=1)


class _Words(HTMLParser):
    """Collects the text of a page, and checks that its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)


def words_of(page: str) -> str:
    parser = _Words()
    parser.feed(page)
    assert parser.open == []
    return " ".join(" ".join(parser.words).replace("\N{NO-BREAK SPACE}", " ").split())


def page_of(summary: Summary, *rows: RowHistory, with_addresses: bool = False) -> str:
    return html.page(summary, rows, with_addresses=with_addresses)


def test_it_tells_what_was_asked_and_what_came_of_it() -> None:
    words = words_of(page_of(summary_of()))

    assert "Upload of certificates.csv As of 2026-11-06 08:30 UTC" in words
    assert "All 3 certificates are stored. Nothing is left to send." in words
    assert "Sent from 2026-11-05 08:30 to 2026-11-05 08:34 UTC POSTs 3: 3 stored" in words
    assert "Rows that need a person None." in words


def test_it_shows_the_first_rows_and_how_many_more() -> None:
    rows = [row(number) for number in range(2, 1002)]
    words = words_of(page_of(full_summary(DOUBTS), *rows))

    assert "100 of 1 160 certificates are stored." in words
    assert "2 1.pdf in doubt no answer 2026-11-05 08:30 00000000000000000000000000000002" in words
    assert "201 200.pdf" in words
    assert "202 201.pdf" not in words
    assert "… and 850 other rows. springest report --csv has all of them." in words
    assert "rejected 12 … is not a user failed 3 …: no such file … and 1 other reason." in words


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (never_sent(status_of(waiting=3)), "0 of 3 certificates are stored. No upload is running"),
        (
            never_sent(status_of()),
            "This manifest has no rows in the journal. Nothing was sent for this manifest. Springest",
        ),
        (summary_of(status_of(stored=3, waiting=2)), "3 of 5 certificates are stored. No upload is running"),
        (summary_of(status_of(stored=3, in_doubt=1)), "Nothing is left to send. The rows in doubt wait for"),
        (summary_of(answer_times=()), "All 3 certificates are stored."),
        (
            summary_of(attrs.evolve(status_of(stored=3), faulty=1)),
            "Rows that need a person None, apart from those that were left out.",
        ),
        (
            summary_of(attrs.evolve(status_of(stored=3), faulty=1)),
            "3 of 4 certificates are stored. Nothing is left to send. 1 row of the manifest has faults and was left",
        ),
    ],
)
def test_every_migration_has_a_report(summary: Summary, words: str) -> None:
    assert words in words_of(page_of(summary, row()))


def test_rows_that_a_run_asks_about_need_no_person() -> None:
    asked = attrs.evolve(status_of(stored=3, in_doubt=2), doubts=DoubtfulRows(asked=2))
    words = words_of(page_of(summary_of(asked)))

    said = "A run is asking Springest about 2 rows in doubt now, so they need no person yet."
    assert f"Rows that need a person {said} Was the limit kept" in words


def test_nothing_was_sent_is_said() -> None:
    words = words_of(page_of(never_sent(status_of(waiting=3))))

    assert "Nothing was sent for this manifest." in words
    assert "Certificates sent a minute" not in words
    assert "Nothing was sent, so there is nothing to audit." in words


def test_it_shows_the_proof_of_the_limit() -> None:
    words = words_of(page_of(summary_of()))

    assert "The limit was kept, and nothing was stored twice: at most 3 POSTs in any 60 s" in words
    assert "POSTs of this manifest 3 all POSTs with the same key in that time 5" in words
    assert "POSTs without a time of Springest 0" in words
    assert "most in any 60 s, by our clock 3, from 2026-11-05 08:30:00 UTC" in words
    assert "stored twice 0 sent again, because Springest did not list it 0 rows in doubt 0" in words


def test_a_broken_limit_and_doubles_are_conspicuous() -> None:
    doubles = (
        Double(rows=(2,), springest_id=None, request_ids=("a", "b")),
        Double(rows=(3, 4), springest_id=4711, request_ids=("c", "d")),
    )
    audit = audit_of(by_our_clock=Peak(posts=31, at=BEGAN, seconds=59.9), doubles=3, first_doubles=doubles)
    page = page_of(summary_of(audit=audit))

    assert '<strong class="exceeded">The limit was NOT kept: 31 POSTs within 59.9 s' in page
    assert "Row 2: stored by several POSTs; request ids a, b" in words_of(page)
    assert "Rows 3, 4: all with Springest's id 4711; request ids c, d" in words_of(page)
    assert "… and 1 more: springest audit" in words_of(page)


def test_what_was_sent_again_is_told_and_is_no_double() -> None:
    one = SentAgain(rows=(2,), springest_id=18, missing_ids=(17,), request_ids=("a", "b"))
    words = words_of(page_of(summary_of(audit=audit_of(sent_again=22, first_sent_again=(one,)))))

    assert "22 certificates were sent again (springest reconcile --repair)" in words
    assert "stored twice 0 sent again, because Springest did not list it 22" in words
    assert "Row 2: sent again; Springest's id was 17, and is 18; request ids a, b" in words
    assert "… and 21 more that were sent again." in words


def test_refusals_for_speed_are_conspicuous() -> None:
    words = words_of(page_of(summary_of(audit=audit_of(refused=2, too_fast=2))))

    assert words.count("But Springest refused 2 POSTs as too fast: something else uses this key") == 2
    assert "refused and sent again 2 … of them as too fast 2" in words


def test_a_server_without_a_clock_is_told() -> None:
    words = words_of(page_of(summary_of(audit=audit_of(by_server_clock=None))))

    assert "by the clock of Springest not known" in words


def test_the_limit_is_the_one_that_was_agreed() -> None:
    assert "The limit is 12 in any minute." in page_of(summary_of(audit=audit_of(limit=12)))


def test_it_has_no_address_unless_it_is_asked_for() -> None:
    found = row(file="7_Employee1@Example.org_2026.pdf", reason="EMPLOYEE1@example.org and boss@example.org")
    summary = summary_of(status_of(in_doubt=1), reasons=(Reason(State.REJECTED, "for other@example.org", 1),))
    without = page_of(summary, found)
    with_them = words_of(page_of(summary, found, with_addresses=True))

    assert not re.search("example", without, re.IGNORECASE)
    assert "7_…_2026.pdf in doubt … and …" in words_of(without)
    assert "2 7_Employee1@Example.org_2026.pdf employee1@example.org in doubt" in with_them
    assert "It shows e-mail addresses, which are personal data." in with_them


def test_an_address_is_found_beside_letters_of_two() -> None:
    """The lower case of a Turkish capital İ is longer than it is."""
    page = page_of(summary_of(status_of(in_doubt=1)), row(file="İ_employee1@example.org.pdf"))

    assert "employee1" not in page


def test_texts_of_others_are_harmless() -> None:
    hostile = '"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>\u202e\x1b[2J'
    summary = summary_of(status_of(in_doubt=1), reasons=(Reason(State.FAILED, hostile, 1),))
    page = page_of(summary, row(file=hostile, reason=hostile, request_id=hostile, email=hostile), with_addresses=True)

    assert not re.search(r"<(script|img|a|link|iframe|object|base)\b", page)
    assert "\u202e" not in page
    assert "\x1b" not in page
    words_of(page)


def test_it_loads_and_links_to_nothing() -> None:
    page = page_of(full_summary(DOUBTS), row())

    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in page
    assert not re.search(r"\b(src|href|action|srcset)=|url\(|@import|@font-face|<script|<link|<a\b", page)
    assert re.findall(r"https?://[^\s\"<]+", page.replace("http://www.w3.org/2000/svg", "")) == [
        "https://api.springest.nl"
    ]


def test_it_is_small_whatever_is_in_it() -> None:
    usual = [row(number, reason="x" * 1000, file="y" * 300) for number in range(2, 1002)]
    hostile = [row(number, reason='"' * 1000, file="&" * 1000, email="'" * 300) for number in range(2, 1002)]

    for rows in (usual, hostile):
        page = page_of(full_summary(DOUBTS), *rows, with_addresses=True)
        assert len(page.encode()) < 500_000
        assert "other rows. springest report --csv has all of them." in words_of(page)


def test_ids_are_unique() -> None:
    ids = re.findall(r'\bid="([^"]*)"', page_of(full_summary(DOUBTS), row()))

    assert len(ids) == len(set(ids)) == 4
