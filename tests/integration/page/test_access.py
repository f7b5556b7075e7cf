"""Who gets to see the page: the token or the password, the host's name, and whether it is the page that asks."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, expect
from yarl import URL

from springest_async.bulk import OpenMigration, State
from springest_async.page import StatusPage
from springest_async.page.access import TOKEN_HEADER

from .rows import loaded
from .viewer import viewer

PASSWORD = "a password that is long"


@pytest.fixture
async def migration(tmp_path: Path) -> AsyncIterator[OpenMigration]:
    async with loaded(tmp_path, 3, [State.STORED, State.IN_DOUBT]) as migration:
        yield migration


@pytest.fixture
async def page(migration: OpenMigration) -> AsyncIterator[StatusPage]:
    async with StatusPage(migration.journal) as page:
        yield page


@pytest.fixture
async def guarded(migration: OpenMigration) -> AsyncIterator[StatusPage]:
    """Serve the page with a password."""
    async with StatusPage(migration.journal, password=PASSWORD) as page:
        yield page


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def status(session: aiohttp.ClientSession, url: str | URL, **headers: str) -> int:
    async with session.get(url, headers=headers) as answer:
        return answer.status


async def post(session: aiohttp.ClientSession, url: str, path: str, json: object = None, **changes: str) -> int:
    """Press a button as the page does, but for some changed headers; an empty one is left out. Return the status."""
    code, _ = await answer_to(session, url, path, json, **changes)
    return code


async def answer_to(
    session: aiohttp.ClientSession, url: str, path: str, json: object = None, **changes: str
) -> tuple[int, str]:
    """Press a button as `post` does, and return the status and the words of the answer."""
    async with session.get(url) as answer:
        token = (await answer.text()).partition('name="springest-page" content="')[2].partition('"')[0]
    headers = {TOKEN_HEADER: token, "Origin": str(URL(url).origin())} | {
        name.replace("_", "-"): value for name, value in changes.items()
    }
    headers = {name: value for name, value in headers.items() if value}
    body = {"data": json} if isinstance(json, bytes) else {"json": json}
    async with session.post(url + path, headers=headers, **body) as answer:
        return answer.status, await answer.text()


async def test_every_answer_forbids_what_a_page_could_do(page: StatusPage, session: aiohttp.ClientSession) -> None:
    root = URL(page.url).origin()
    for url in (page.url, page.url + "page.js", page.url + "events", page.url + "nothing", root / "nothing"):
        async with session.get(url) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_the_token_there_is_no_page(page: StatusPage, session: aiohttp.ClientSession) -> None:
    root = URL(page.url).origin()
    token = URL(page.url).parts[1]
    assert len(token) >= 32
    for path in ("", "page.js", "events", "x/", f"{token[:-1]}/", f"{token}x/events", "migrations/1/doubts"):
        assert await status(session, f"{root}/{path}") == 404
    assert await status(session, page.url) == 200
    assert await status(session, page.url.rstrip("/")) == 200  # as some programs shorten an address
    assert page.url.rstrip("/").rpartition("/")[2] not in repr(page)


@pytest.mark.parametrize("path", ["../page.py", "..%2f..%2fserver.py", "static/page.js", "index.html", "page.css/.."])
async def test_nothing_but_the_files_of_the_page(page: StatusPage, session: aiohttp.ClientSession, path: str) -> None:
    assert await status(session, URL(page.url + path, encoded=True)) == 404


async def test_a_name_that_was_made_to_lead_here_is_refused(page: StatusPage, session: aiohttp.ClientSession) -> None:
    port = URL(page.url).port
    for host in (f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "@"):
        assert await status(session, page.url, Host=host) == 403
    for host in (f"localhost:{port}", "LOCALHOST:9000", "127.0.0.1", "[::1]:1"):  # also through a tunnel
        assert await status(session, page.url, Host=host) == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"X_Springest_Page": ""},
        {"X_Springest_Page": "wrong"},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
    ],
    ids=str,
)
async def test_a_post_that_another_page_made_is_refused(
    migration: OpenMigration, page: StatusPage, session: aiohttp.ClientSession, changes: dict[str, str]
) -> None:
    path = f"migrations/{migration.id}/pause"

    assert await post(session, page.url, path, **changes) == 403
    assert await migration.paused_at() is None
    assert await post(session, page.url, path) == 200
    assert await migration.paused_at() is not None


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"rows": {"3": ""}},
        {"rows": {}, "answer": "stored"},
        {"rows": None, "answer": "stored"},
        {"rows": [3], "answer": "stored"},
        {"rows": {"3": None}, "answer": "stored"},
        {"rows": {"x": ""}, "answer": "stored"},
        {"rows": {"3": ""}, "answer": "in doubt"},
        {"rows": {str(row): "" for row in range(51)}, "answer": "stored"},
        b"\xff\xfe{",
        b"[" * 10_000,
    ],
    ids=str,
)
async def test_an_answer_that_is_none_changes_nothing(
    migration: OpenMigration, page: StatusPage, session: aiohttp.ClientSession, body: object
) -> None:
    assert await post(session, page.url, f"migrations/{migration.id}/answers", body) == 400
    assert (await migration.counts())[State.IN_DOUBT] == 1


async def test_what_is_not_there_is_told(
    migration: OpenMigration, page: StatusPage, session: aiohttp.ClientSession
) -> None:
    assert await post(session, page.url, "migrations/99/resume") == 404
    assert await post(session, page.url, f"migrations/{migration.id}/forget") == 404
    assert await post(session, page.url, "events") == 404
    assert await status(session, f"{page.url}migrations/99/doubts") == 404
    assert await status(session, f"{page.url}migrations/x/doubts") == 404
    assert await status(session, f"{page.url}migrations/{migration.id}/doubts?after=x") == 400
    for row in ("2", "3"):  # row 2 is stored, and row 3 has another request
        answer = {"rows": {row: "0" * 32}, "answer": "send again"}
        assert await post(session, page.url, f"migrations/{migration.id}/answers", answer) == 409
    assert (await migration.counts())[State.IN_DOUBT] == 1


async def test_an_upload_that_never_was_is_not_there(page: StatusPage, session: aiohttp.ClientSession) -> None:
    for action in ("pause", "resume", "answers"):
        body = {"rows": {"3": "0" * 32}, "answer": "stored"}
        words = "The journal has no such upload: it never had, or “springest journal forget” has erased it."
        assert await answer_to(session, page.url, f"migrations/99/{action}", body) == (404, words)


async def test_with_a_password_nothing_is_shown_without_it(guarded: StatusPage, session: aiohttp.ClientSession) -> None:
    assert URL(guarded.url).path == "/"
    for shown in ("", "Basic", "Basic !", "Basic 4pyT", f"Bearer {PASSWORD}", _basic("wrong"), _basic(PASSWORD + " ")):
        for path in ("", "page.js", "events", "migrations/1/doubts"):
            async with session.get(guarded.url + path, headers={"Authorization": shown} if shown else {}) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert await status(session, guarded.url, Authorization=_basic(PASSWORD)) == 200
    for host in ("192.168.1.7:8080", "[fe80::1]", "localhost"):  # an address leads nowhere else
        assert await status(session, guarded.url, Authorization=_basic(PASSWORD), Host=host) == 200
    assert await status(session, guarded.url, Authorization=_basic(PASSWORD), Host="evil.example") == 403
    assert PASSWORD not in repr(guarded)


def _basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"els:{password}".encode()).decode()


@pytest.mark.chromium
async def test_a_browser_asks_for_the_password_and_the_page_works(
    migration: OpenMigration, guarded: StatusPage, browser: Browser
) -> None:
    password = {"username": "els", "password": PASSWORD}
    async with viewer(browser, guarded.url, http_credentials=password) as seen:
        await expect(seen.card()).to_contain_text("1 of 3 rows done")
        await seen.button("Pause: certificates.csv").click()
        await expect(seen.card()).to_contain_text("Paused since")


FORGERY = """
<!doctype html><title>Evil</title><iframe src="{url}"></iframe>
<form method="post" action="{url}migrations/1/pause" target="other"><button>Win a prize</button></form>
<script>
const attempts = [];
for (const mode of ["no-cors", "cors"])
  attempts.push(fetch("{url}migrations/1/pause", {{method: "POST", mode, credentials: "include"}})
    .then((answer) => answer.type, () => "refused"));
attempts.push(fetch("{url}events", {{credentials: "include"}}).then(() => "read", () => "refused"));
Promise.all(attempts).then((found) => {{ document.title = found.join(" "); }});
</script>
"""


@pytest.mark.chromium
async def test_another_website_can_press_no_button(
    migration: OpenMigration, guarded: StatusPage, browser: Browser
) -> None:
    async def evil(_: web.Request) -> web.Response:
        return web.Response(text=FORGERY.format(url=guarded.url), content_type="text/html")

    app = web.Application()
    app.router.add_get("/", evil)
    # The browser sends the password with whatever asks for the page.
    context = await browser.new_context(http_credentials={"username": "els", "password": PASSWORD})
    async with TestServer(app) as server:
        seen = await context.new_page()
        await seen.goto(guarded.url)
        await expect(seen.get_by_role("heading", name="certificates.csv")).to_be_visible()
        other = await context.new_page()
        await other.goto(str(server.make_url("/")))
        await expect(other).to_have_title("refused refused refused")
        async with context.expect_page() as opened:
            await other.get_by_role("button", name="Win a prize").click()
        await (await opened.value).wait_for_load_state()
        await expect((await opened.value).get_by_text("This did not come from the page")).to_be_visible()
        assert await other.frame_locator("iframe").get_by_role("heading").count() == 0
        await context.close()

    assert await migration.paused_at() is None
