-- Let one replica at a time look for stale claims; the others have nothing to add.
SELECT pg_try_advisory_xact_lock(2, 0)
