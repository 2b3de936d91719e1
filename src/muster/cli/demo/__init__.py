"""`make demo`: the whole path on one machine, for two people, in a minute, leaving nothing behind."""
