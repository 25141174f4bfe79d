"""Prompts: where they come from, their syntax, and the score text appended to them."""
