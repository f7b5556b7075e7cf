"""The help of ``springest`` as a whole; the help of one command is made from its docstring, in `app`.

cyclopts would need twice the time for it, so this module does without it.
"""

from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from springest_async.cli.console import to_help
from springest_async.cli.exit_codes import Exit

COMMANDS = {
    "audit": "Show whether an upload has kept the limit, and whether anything may be stored twice.",
    "bench": "Measure how fast uploads are on this machine, and what bounds them.",
    "certificates": "List the certificates that Springest has verified.",
    "certifications": "List the verified certifications, with the ids for the manifest.",
    "check": "Check a manifest and its PDFs, and show what an upload would do. It sends nothing.",
    "demo": "Watch a whole migration on this machine, in a minute and without a key.",
    "journal": "Show where the journal is, erase personal data from it, or trust its server.",
    "pause": "Let all who upload a manifest wait, on any machine, until springest resume.",
    "reconcile": "Compare an upload with what Springest lists: missing, doubled, other dates, not ours.",
    "report": "Show what became of a manifest; as CSV, as a manifest of the rows to correct, or as a page.",
    "resolve": "Decide about rows in doubt, after looking them up at Springest.",
    "resume": "Let an upload go on after springest pause.",
    "sandbox": "Run a local Springest to develop against.",
    "status": "Show how far all uploads are, or one with its rows in doubt, also while it runs.",
    "template": "Make a manifest: an empty one, or one from the names of the PDFs in a folder.",
    "upload": "Upload the certificates in a manifest, or continue an upload.",
}

_OPTIONS = {
    "--help, -h": "Show this help, or that of a command: `springest upload --help`.",
    "--version": "Show the version.",
}

_ENVIRONMENT = {
    "SPRINGEST_API_KEY": "the key for certificates; each host has its own.",
    "SPRINGEST_CERTIFICATIONS_API_KEY": "the key for certifications, which is a different one.",
    "SPRINGEST_HOST": "`nl` (default), `be`, `de`, `uk`, `com`, or an origin such as"
    " `https://site.api.go.springest.nl`.",
    "SPRINGEST_JOURNAL": "the journal of everything that was sent, which prevents that anything is sent twice: a file"
    " on a disk of this machine, or `postgresql://…` for several machines; by default a file in your state folder.",
    "SPRINGEST_PING": "an address that is told each minute that an upload is alive (`--ping`).",
    "HTTPS_PROXY`, `NO_PROXY": "the proxy to use (`http://proxy.example:3128`), and the hosts to reach without it.",
    "SSL_CERT_FILE`, `SSL_CERT_DIR": "the CAs to trust instead of the system's.",
}

_EXAMPLES = {
    "springest demo": "watch a whole migration on this machine.",
    "springest template diplomas": "make a manifest with a row for each PDF of a folder.",
    "springest check certificates.csv": "see what is wrong with a manifest, and how long its upload takes.",
    "springest upload certificates.csv": "upload the PDFs in the manifest, or continue an upload.",
    "springest status certificates.csv": "see how far it is, and which rows are in doubt; without a manifest, all"
    " uploads.",
    "springest report certificates.csv --html report.html": "see what became of it, and make a page for a mail.",
    "springest certificates --email jan@example.org --format csv": "list the certificates that Springest has verified.",
    "springest sandbox --port 8080": "run a local Springest to develop against.",
    "springest bench --limit off": "see how fast this machine is, and what bounds it, without a key.",
}

_EXIT_CODES = (
    "Exit codes: 0 all stored, 1 some rows rejected or failed, 2 faults of usage or manifest (nothing was sent),"
    " 3 some rows in doubt, 4 the key was refused, 5 stopped as asked (--until …; the same command continues),"
    " 6 an audit or a comparison found a difference, 130 interrupted."
)


def show_help() -> Exit:
    """Print the help."""
    out = to_help()
    out.print(Text("Usage: springest COMMAND\n", style="bold"))
    out.print("Upload certificates to Springest, and list those that are there.\n")
    _list(out, "Environment:", _ENVIRONMENT)
    commands = Table.grid(padding=(0, 2, 0, 0))
    for name, summary in (COMMANDS | _OPTIONS).items():
        commands.add_row(Text(name, style="cyan", no_wrap=True), _text(summary))
    out.print(Panel(commands, title="Commands", title_align="left"))
    out.print()
    _list(out, "Examples:", _EXAMPLES)
    out.print(_EXIT_CODES, highlight=False)
    return Exit.STORED


def _list(out: Console, title: str, items: Mapping[str, str]) -> None:
    out.print(title)
    bullets = Table.grid(padding=(0, 1, 0, 0))
    for term, words in items.items():
        bullets.add_row("•", _text(f"`{term}`: {words}"))
    out.print(Padding(bullets, (1, 0, 1, 1)))


def _text(words: str) -> Text:
    """Return words as text, in which what stands between backticks is code."""
    text = Text()
    for number, part in enumerate(words.split("`")):
        text.append(part, style="bold cyan" if number % 2 else "")
    return text
