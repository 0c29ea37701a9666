-- Store a target once; nothing is returned if another submission was faster.
INSERT INTO selectors (digest, work_type, targets, generator_id)
VALUES (:digest, :work_type, :targets, :generator_id)
    ON CONFLICT (digest, work_type, excluded) DO NOTHING
RETURNING id
