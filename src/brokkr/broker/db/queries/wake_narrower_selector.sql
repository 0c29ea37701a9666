-- Make the lane for Works of a selector that these agents have tried a lane again; nothing is
-- returned if it does not rest.  As in wake_selector.sql.
UPDATE selectors AS narrow
   SET agents = NULL, idle_since = NULL
  FROM selectors AS mine
 WHERE mine.id = (SELECT selector_id FROM work_queue WHERE id = :work_id)
   AND narrow.digest = mine.digest
   AND narrow.work_type = mine.work_type
   AND narrow.excluded = :excluded::uuid[]
   AND narrow.agents IS NOT NULL
RETURNING narrow.id
