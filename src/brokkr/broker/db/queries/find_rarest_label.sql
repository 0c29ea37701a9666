-- Of some labels the one that the fewest Works have, counted no further than matters.
--
-- In the order of the index, or the planner may read the table for a label that many have.
SELECT asked.label
  FROM unnest(:labels::text[]) AS asked (label)
 CROSS JOIN LATERAL (
       SELECT count(*) AS works
         FROM (SELECT FROM work_labels AS labelled
                WHERE labelled.label = asked.label
                ORDER BY labelled.work_id
                LIMIT 1000) AS few
       ) AS counted
 ORDER BY counted.works
 LIMIT 1
