-- Store the admin key of the configuration, which replicas that start together all do.
INSERT INTO api_keys (short_id, secret_sha256, role, name)
VALUES (:short_id, :secret_sha256, 'admin', 'configuration')
    ON CONFLICT (short_id) DO NOTHING
