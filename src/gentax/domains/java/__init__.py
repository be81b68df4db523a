"""Domains that run on Java: one process for each package, a connection for each environment. Loads nothing itself."""
