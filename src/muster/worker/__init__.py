"""Runs tasks: one call at a time, in a process that nothing in the call may bring down quietly."""
