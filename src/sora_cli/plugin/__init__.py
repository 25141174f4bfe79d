"""The plugin system: hooks, specs, protocols and the manager."""
