"""The formats: bytes and dicts from and to the domain.  Pure."""
