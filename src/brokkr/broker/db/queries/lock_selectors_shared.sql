-- Held while a new selector looks at the agents: see lock_selectors.sql.
SELECT pg_advisory_xact_lock_shared(1, 0)
