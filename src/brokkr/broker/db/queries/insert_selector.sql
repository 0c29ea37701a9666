-- Store a target once; nothing is returned if another submission was faster.
INSERT INTO selectors (digest, targets)
VALUES (:digest, :targets)
    ON CONFLICT (digest) DO NOTHING
RETURNING id
