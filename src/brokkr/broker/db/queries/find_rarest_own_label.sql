-- Of some labels the one that the fewest Works of a generator have, counted no further than
-- matters; as in find_rarest_label.sql.
SELECT asked.label
  FROM unnest(:labels::text[]) AS asked (label)
 CROSS JOIN LATERAL (
       SELECT count(*) AS works
         FROM (SELECT FROM generator_labels AS labelled
                WHERE labelled.generator_id = :generator_id
                  AND labelled.label = asked.label
                ORDER BY labelled.work_id
                LIMIT 1000) AS few
       ) AS counted
 ORDER BY counted.works
 LIMIT 1
