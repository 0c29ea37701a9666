-- Keep which Work a key stands for; if that is known, return it unchanged.
--
-- One that has expired counts as new.  A request at the same moment with the same key waits
-- for the row, and then sees what the first one made.
INSERT INTO idempotency_keys AS kept (owner, key, body_sha256, work_id, expires_at)
VALUES (:owner, :key, :body_sha256, :work_id, now() + :lifetime::interval)
    ON CONFLICT (owner, key) DO UPDATE
   SET body_sha256 = CASE WHEN kept.expires_at > now()
                          THEN kept.body_sha256 ELSE EXCLUDED.body_sha256 END,
       work_id = CASE WHEN kept.expires_at > now() THEN kept.work_id ELSE EXCLUDED.work_id END,
       expires_at = CASE WHEN kept.expires_at > now()
                         THEN kept.expires_at ELSE EXCLUDED.expires_at END
RETURNING work_id, body_sha256
