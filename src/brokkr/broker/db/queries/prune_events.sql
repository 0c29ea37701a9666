-- Delete the events of finished Works that are old enough.
--
-- The mark passes nothing by, as in prune_payloads.sql.  The Work keeps the number of its
-- newest event, so that numbers go on if it is queued again.
WITH old AS (
    SELECT log.id, log.completed_at
      FROM retention_marks AS mark
      JOIN work_execution_log AS log ON log.outcome = mark.outcome
     WHERE mark.outcome = :outcome
       AND log.completed_at > mark.events_pruned_to
       AND log.completed_at < now() - :age::interval
     ORDER BY log.completed_at
     FETCH FIRST :limit ROWS WITH TIES
), locked AS (
    SELECT log.id
      FROM work_execution_log AS log
      JOIN old USING (id)
     ORDER BY log.id
       FOR UPDATE OF log
), pruned AS (
    DELETE FROM work_events AS event USING locked WHERE event.work_id = locked.id
    RETURNING event.number
), marked AS (
    UPDATE retention_marks
       SET events_pruned_to = (SELECT max(completed_at) FROM old)
     WHERE outcome = :outcome
       AND EXISTS (SELECT FROM old)
)
SELECT (SELECT count(*) FROM old) AS seen, (SELECT count(*) FROM pruned) AS pruned
