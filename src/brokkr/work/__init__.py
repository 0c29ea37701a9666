"""The domain: what a Work is, whom it is for, and what may go wrong.  Pure."""
