"""The examples of docs/manifests.md and docs/watching.md: files, commands, and what has to be stored in the end.

``python -m tests.integration.examples`` runs each command of the pages in a folder with the files of its example,
against a sandbox, and writes what it printed into the page. A test does the same, and fails where a page says something
else.
`manifests` and `watching` make the files, `shell` runs the commands, and `page` makes the pages.
"""
