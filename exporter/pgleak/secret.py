"""Which texts may hold a password, told without a driver."""

from __future__ import annotations

# Values that nobody may see. `passfile` and `sslkey` are paths, not secrets.
SECRET_OPTIONS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


def looks_like_dsn(text: str) -> bool:
    """Whether a text may well be a connection string, so that showing it may show a password."""
    lowered = text.lower()
    return "://" in lowered or any(f"{option}=" in lowered.replace(" ", "") for option in SECRET_OPTIONS)
