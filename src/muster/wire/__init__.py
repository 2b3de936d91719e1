"""Messages between processes, and their bytes (docs/protocol.md)."""
