-- Which of these targets are lanes; locked, as in find_selector.
SELECT digest, work_type
  FROM selectors
 WHERE (digest, work_type) IN (SELECT * FROM unnest(:digests::bytea[], :work_types::text[]))
   AND excluded = '{}'
   AND agents IS NULL
   FOR KEY SHARE
