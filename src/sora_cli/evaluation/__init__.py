"""What `sora eval` does: samples of prompt suites, scores, tables of them."""
