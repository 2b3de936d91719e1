"""The truth: every accepted task and every result, in SQLite or PostgreSQL."""
