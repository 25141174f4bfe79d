"""The scenes nano is trained on: what may vary, how clips are painted, and captions that are true for them."""
