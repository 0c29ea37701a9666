-- Store a key; only the digest of its secret is kept.
INSERT INTO api_keys (short_id, secret_sha256, role, agent_id, generator_id, name)
VALUES (:short_id, :secret_sha256, :role, :agent_id, :generator_id, :name)
RETURNING created_at
