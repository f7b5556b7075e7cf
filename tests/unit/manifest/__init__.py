"""Tests of manifest/: no journal, no network."""
