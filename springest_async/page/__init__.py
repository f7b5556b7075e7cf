"""The status page: one small page that shows all migrations of a journal, and lets a person answer."""
