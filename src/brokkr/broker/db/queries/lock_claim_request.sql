-- Let one request id be answered by one transaction at a time, so that a repeat that
-- overtakes the original waits for it and then finds its claims.
SELECT pg_advisory_xact_lock(3, hashtext(:request_id::uuid::text))
