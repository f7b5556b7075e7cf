"""Tests of bulk/: journals in memory, and a client and a server in memory, in virtual time."""
