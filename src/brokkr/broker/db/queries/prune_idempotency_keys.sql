-- Delete keys that have expired.
--
-- One that is being used again is skipped, or is not expired any more once it is locked.
WITH old AS (
    SELECT owner, key
      FROM idempotency_keys
     WHERE expires_at < now()
     ORDER BY expires_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM idempotency_keys AS kept USING old
     WHERE kept.owner = old.owner AND kept.key = old.key
    RETURNING kept.key
)
SELECT count(*) FROM deleted
