-- Selectors that rest although Work is queued for them: a broker of an earlier version does not
-- wake them.
--
-- The lanes in which something is queued are found by leaps through their index.
WITH RECURSIVE queued AS (
    (SELECT selector_id
       FROM work_queue
      WHERE status = 'PENDING' AND is_due
      ORDER BY selector_id
      LIMIT 1)
    UNION ALL
    SELECT (SELECT work.selector_id
              FROM work_queue AS work
             WHERE work.status = 'PENDING' AND work.is_due
               AND work.selector_id > queued.selector_id
             ORDER BY work.selector_id
             LIMIT 1)
      FROM queued
     WHERE queued.selector_id IS NOT NULL
)
SELECT selector.id, selector.digest, selector.work_type, selector.excluded, selector.targets
  FROM queued
  JOIN selectors AS selector ON selector.id = queued.selector_id
 WHERE selector.agents IS NOT NULL
 ORDER BY selector.excluded, selector.id
 LIMIT :limit
