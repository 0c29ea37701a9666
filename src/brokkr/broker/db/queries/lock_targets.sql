-- Let one submission at a time use a target that is new for a generator, so that it does not get
-- more of them than it may have.
SELECT pg_advisory_xact_lock(7, hashtext(:generator_id::uuid::text))
