"""The user endpoint: takes tasks from its queue, hands them to an engine, and sends every outcome exactly once."""
