-- Held while agents change what selectors look at.
--
-- A new selector does not see labels that are not committed, and the change of labels does
-- not see the selector: both at once, and neither would find the other.
SELECT pg_advisory_xact_lock(1, 0)
