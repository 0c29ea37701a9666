-- Shorten leases that are longer than any can be: the clock was ahead when they were given, and
-- has been set back.
--
-- A lease that is given at this moment may be a little longer, seen from here.  Rows are locked
-- in the order of ids, as by heartbeats.
WITH held AS (
    SELECT id, now() + make_interval(secs => claim_timeout_seconds) AS longest
      FROM work_queue
     WHERE status = 'CLAIMED'
       AND greatest(lease_expires_at, lease_check_at)
           > now() + make_interval(secs => claim_timeout_seconds + 10)
     ORDER BY id
       FOR UPDATE
)
UPDATE work_queue AS work
   SET lease_expires_at = least(work.lease_expires_at, held.longest),
       lease_check_at = least(work.lease_check_at, held.longest)
  FROM held
 WHERE work.id = held.id
