-- Store a target once; nothing is returned if another submission was faster.
INSERT INTO selectors (digest, work_type, targets)
VALUES (:digest, :work_type, :targets)
    ON CONFLICT (digest, work_type, excluded) DO NOTHING
RETURNING id
