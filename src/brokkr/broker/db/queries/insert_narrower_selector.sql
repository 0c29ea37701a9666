-- The lane for Works of a selector that these agents have tried; nothing is returned if it
-- is there already.
INSERT INTO selectors (digest, work_type, targets, excluded)
SELECT digest, work_type, targets, :excluded::uuid[]
  FROM selectors
 WHERE id = (SELECT selector_id FROM work_queue WHERE id = :work_id)
    ON CONFLICT (digest, work_type, excluded) DO NOTHING
RETURNING id
