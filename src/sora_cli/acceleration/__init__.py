"""Making networks faster from outside. Nothing heavy is imported here: settings and completion need the names."""

ATTENTION_BACKENDS = ("auto", "sdpa", "math", "flash", "xformers")
"""The names `--attention` takes; a test compares them with the table in attention.py."""
