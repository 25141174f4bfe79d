"""Training: what is learned from, in which order, and how."""
