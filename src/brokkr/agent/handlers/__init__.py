"""What each work type means.  Pure."""
