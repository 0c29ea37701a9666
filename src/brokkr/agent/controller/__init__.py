"""The Work controller: observe, decide, act."""
