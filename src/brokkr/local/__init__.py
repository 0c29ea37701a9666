"""The whole system on one machine.  A stand-in for a cluster; nothing here runs in production."""
