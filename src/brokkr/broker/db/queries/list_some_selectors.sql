-- The next whole targets, by id.
SELECT id, targets
  FROM selectors
 WHERE id > :after AND excluded = '{}'
 ORDER BY id
 LIMIT :limit
