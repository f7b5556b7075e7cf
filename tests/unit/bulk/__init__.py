"""Tests of the bulk part: files and loopback sockets only."""
