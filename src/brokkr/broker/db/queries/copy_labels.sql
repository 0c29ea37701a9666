-- Copy the next few labels of generators' Works, from before there was generator_labels, and say
-- whether these were the last.
--
-- One replica at a time does.  A Work that moves between queue and log is always in one of them,
-- and one that is deleted meanwhile leaves a label that nothing is found by.
WITH mark AS (
    SELECT label, work_id FROM label_copy WHERE NOT is_done FOR UPDATE SKIP LOCKED
), slice AS (
    SELECT next.label, next.work_id
      FROM mark
     CROSS JOIN LATERAL (
           SELECT label, work_id
             FROM work_labels
            WHERE (label, work_id) > (mark.label, mark.work_id)
            ORDER BY label, work_id
            LIMIT :limit
           ) AS next
), copied AS (
    INSERT INTO generator_labels (generator_id, label, work_id)
    SELECT work.generator_id, slice.label, slice.work_id
      FROM slice
     CROSS JOIN LATERAL (
           SELECT generator_id FROM work_queue WHERE id = slice.work_id
           UNION ALL
           SELECT generator_id FROM work_execution_log WHERE id = slice.work_id
           ) AS work
     WHERE work.generator_id IS NOT NULL
        ON CONFLICT DO NOTHING
), marked AS (
    UPDATE label_copy
       SET is_done = counted.labels < :limit,
           label = coalesce(last.label, label_copy.label),
           work_id = coalesce(last.work_id, label_copy.work_id)
      FROM (SELECT count(*) AS labels FROM slice) AS counted
      LEFT JOIN (SELECT label, work_id FROM slice ORDER BY label DESC, work_id DESC LIMIT 1) AS last
             ON true
     WHERE EXISTS (SELECT FROM mark)
    RETURNING is_done
)
SELECT coalesce((SELECT is_done FROM marked), (SELECT is_done FROM label_copy))
