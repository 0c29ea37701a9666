-- All keys, newest first, with the names of their owners.
--
-- Keys are never deleted, so the one that a page ended with is there when the next is read.
SELECT key.short_id, key.role, coalesce(agent.name, generator.name, key.name) AS name,
       key.created_at, key.last_used_at, key.revoked_at
  FROM api_keys AS key
  LEFT JOIN agents AS agent ON agent.id = key.agent_id
  LEFT JOIN generators AS generator ON generator.id = key.generator_id
 WHERE :before::text IS NULL
    OR (key.created_at, key.short_id) < (
       SELECT last.created_at, last.short_id
         FROM api_keys AS last
        WHERE last.short_id = :before::text
       )
 ORDER BY key.created_at DESC, key.short_id DESC
 LIMIT :limit
