-- The living key of a short id, with the agent or generator it belongs to.
SELECT key.secret_sha256, key.role,
       key.agent_id, agent.name AS agent_name,
       key.generator_id, generator.name AS generator_name
  FROM api_keys AS key
  LEFT JOIN agents AS agent ON agent.id = key.agent_id
  LEFT JOIN generators AS generator ON generator.id = key.generator_id
 WHERE key.short_id = :short_id
   AND key.revoked_at IS NULL
