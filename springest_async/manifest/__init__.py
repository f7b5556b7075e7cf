"""The spreadsheet beside an archive: how it is written, what its columns and dates mean, and which files it names."""
