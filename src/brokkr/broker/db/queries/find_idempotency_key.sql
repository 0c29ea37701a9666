-- Which Work a key stands for, if it has not expired.
SELECT work_id, body_sha256
  FROM idempotency_keys
 WHERE owner = :owner AND key = :key AND expires_at > now()
