-- The lane for Works of a selector that these agents have tried.
--
-- `ON CONFLICT` updates what is there to the same, which locks it and returns its id.
INSERT INTO selectors (digest, work_type, targets, excluded)
SELECT digest, work_type, targets, :excluded::uuid[]
  FROM selectors
 WHERE id = (SELECT selector_id FROM work_queue WHERE id = :work_id)
    ON CONFLICT (digest, work_type, excluded) DO UPDATE SET excluded = EXCLUDED.excluded
RETURNING id
