-- Close all keys of a generator.
UPDATE api_keys SET revoked_at = now() WHERE generator_id = :generator_id AND revoked_at IS NULL
RETURNING short_id
