"""Public fakes and real stages for tests: of Muster itself, and of whoever builds on it."""
