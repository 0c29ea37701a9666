-- Let one replica at a time prune; the others have nothing to add.
SELECT pg_try_advisory_xact_lock(6, 0)
