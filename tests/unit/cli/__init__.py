"""Tests of the command's parts, without a process of its own."""
