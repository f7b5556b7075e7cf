"""The journal: what was ever sent, and the budgets. One async interface, two databases: SQLite and PostgreSQL."""
