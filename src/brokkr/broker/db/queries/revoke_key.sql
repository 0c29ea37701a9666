-- Close a living key, unless it is the last that an admin has.
--
-- Two admins who revoke each other's key at once lock the same rows in one order: the second
-- one waits, no longer finds its own among the living, and revokes nothing.
WITH admins AS MATERIALIZED (
    SELECT short_id FROM api_keys
     WHERE role = 'admin' AND revoked_at IS NULL
     ORDER BY short_id
       FOR UPDATE
), revoked AS (
    UPDATE api_keys
       SET revoked_at = now()
     WHERE short_id = :short_id
       AND revoked_at IS NULL
       AND (role <> 'admin' OR (SELECT count(*) FROM admins) > 1)
    RETURNING short_id
)
SELECT EXISTS (SELECT FROM revoked) AS is_revoked,
       EXISTS (SELECT FROM admins WHERE short_id = :short_id) AS is_living_admin
