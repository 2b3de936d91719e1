"""The manager's unprivileged half: the agent, and the registrar that runs before it."""
