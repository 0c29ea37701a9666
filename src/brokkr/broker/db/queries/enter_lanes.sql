-- Let Works enter their lanes whose time has come.
WITH due AS (
    SELECT id FROM work_queue
     WHERE status = 'PENDING' AND NOT is_due AND not_before <= now()
     ORDER BY not_before
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
)
UPDATE work_queue AS work
   SET is_due = true
  FROM due
 WHERE work.id = due.id
RETURNING work.selector_id
