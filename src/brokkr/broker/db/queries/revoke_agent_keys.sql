-- Close all keys of an agent.
UPDATE api_keys SET revoked_at = now() WHERE agent_id = :agent_id AND revoked_at IS NULL
RETURNING short_id
