-- How much each of some agents would claim before a Work: over all of its lanes that are of
-- types which it supports, in the order of claims.
--
-- Of each lane two ranges of its index are read, as in find_pending_work.sql, and no more
-- than the limit of all together.
SELECT me.id AS agent_id, ahead.works
  FROM agents AS me
 CROSS JOIN LATERAL (
       SELECT count(*) AS works
         FROM (SELECT
                 FROM agent_selectors AS mine
                 JOIN selectors AS selector ON selector.id = mine.selector_id
                CROSS JOIN LATERAL (
                      (SELECT FROM work_queue AS urgent
                        WHERE urgent.selector_id = mine.selector_id
                          AND urgent.status = 'PENDING' AND urgent.is_due
                          AND urgent.priority > :priority
                        LIMIT :limit)
                      UNION ALL
                      (SELECT FROM work_queue AS earlier
                        WHERE earlier.selector_id = mine.selector_id
                          AND earlier.status = 'PENDING' AND earlier.is_due
                          AND earlier.priority = :priority
                          AND earlier.seq < :seq
                        LIMIT :limit)
                      ) AS first
                WHERE mine.agent_id = me.id
                  AND (me.capabilities IS NULL
                       OR me.capabilities -> 'types' ? selector.work_type)
                LIMIT :limit) AS counted
       ) AS ahead
 WHERE me.id = ANY (:agent_ids::uuid[])
