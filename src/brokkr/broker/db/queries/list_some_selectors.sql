-- The next whole targets that are lanes, by id.
SELECT id, targets
  FROM selectors
 WHERE id > :after AND excluded = '{}' AND agents IS NULL
 ORDER BY id
 LIMIT :limit
