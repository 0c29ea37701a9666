-- The distinct targets that are lanes, whole ones; who is in the others follows from these.
-- A page of them by id, or those that are asked for.
SELECT id, targets
  FROM selectors
 WHERE excluded = '{}'
   AND agents IS NULL
   AND id > :after?
   AND id = ANY (:ids?::bigint[])
 ORDER BY id
 LIMIT :limit
