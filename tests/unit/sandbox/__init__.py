"""Tests of the sandbox, without sockets."""
