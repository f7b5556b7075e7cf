"""The examples of docs/manifests.md: their files, and what the sandbox has to have stored in the end.

``python -m tests.integration.examples`` runs each command of the page in a folder with the files of its example,
against a sandbox, and writes what it printed into the page. A test does the same, and fails where the page says
something else.
`inputs` makes the files, and `page` runs the commands.
"""
