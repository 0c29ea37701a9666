-- Lock pending Works that nobody claimed before their start deadline.
--
-- A Work that was claimed in time has started in time: the deadline is over with it.
SELECT id
  FROM work_queue
 WHERE status = 'PENDING'
   AND round = 0
   AND start_deadline < now()
 ORDER BY start_deadline
 LIMIT :limit
   FOR UPDATE SKIP LOCKED
