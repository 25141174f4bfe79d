"""What the commands do once their configuration is resolved."""
