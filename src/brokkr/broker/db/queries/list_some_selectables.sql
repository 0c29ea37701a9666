-- The next living agents, by id, as much of each as a target looks at.
SELECT id, name, labels, annotations
  FROM agents
 WHERE id > :after AND deleted_at IS NULL
 ORDER BY id
 LIMIT :limit
