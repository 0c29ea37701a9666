-- Forget the templates of finished Works that are old enough; they cannot be queued again.
--
-- What is being queued again meanwhile is waited for, and is then either gone from the log or
-- still here: the mark passes nothing by.  `WITH TIES`, because many end at one time.
WITH old AS (
    SELECT log.id, log.completed_at
      FROM retention_marks AS mark
      JOIN work_execution_log AS log ON log.outcome = mark.outcome
     WHERE mark.outcome = :outcome
       AND log.completed_at > mark.payloads_pruned_to
       AND log.completed_at < now() - :age::interval
     ORDER BY log.completed_at
     FETCH FIRST :limit ROWS WITH TIES
), pruned AS (
    UPDATE work_execution_log AS log
       SET crd_spec = NULL
      FROM old
     WHERE log.id = old.id
       AND log.crd_spec IS NOT NULL
    RETURNING log.id
), marked AS (
    UPDATE retention_marks
       SET payloads_pruned_to = (SELECT max(completed_at) FROM old)
     WHERE outcome = :outcome
       AND EXISTS (SELECT FROM old)
)
SELECT (SELECT count(*) FROM old) AS seen, (SELECT count(*) FROM pruned) AS pruned
