"""One file per command: option declarations and one call, no logic."""
