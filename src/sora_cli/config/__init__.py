"""Settings: the schema, the files and variables they come from, and how they are put together."""
