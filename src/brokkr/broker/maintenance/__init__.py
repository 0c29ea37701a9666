"""What runs by itself, every so often."""
