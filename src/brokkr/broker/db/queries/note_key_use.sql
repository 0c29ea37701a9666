-- Note that keys are in use, at most every five minutes for each.
--
-- A row that another replica has locked is left out: it is noting the same.
WITH unnoted AS (
    SELECT short_id FROM api_keys
     WHERE short_id = ANY (:short_ids::char(10)[])
       AND (last_used_at IS NULL OR last_used_at < now() - interval '5 minutes')
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE api_keys AS key
   SET last_used_at = now()
  FROM unnoted
 WHERE key.short_id = unnoted.short_id
