-- Look again at leases that were renewed since when they would run out now.
WITH renewed AS (
    SELECT id FROM work_queue
     WHERE status = 'CLAIMED'
       AND lease_check_at < now()
       AND lease_expires_at >= now()
     ORDER BY lease_check_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
), postponed AS (
    UPDATE work_queue AS work
       SET lease_check_at = work.lease_expires_at
      FROM renewed
     WHERE work.id = renewed.id
    RETURNING work.id
)
SELECT count(*) FROM postponed
