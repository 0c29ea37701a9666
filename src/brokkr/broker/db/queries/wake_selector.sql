-- Make a selector that rests a lane again; nothing is returned if none rests.
--
-- The caller stores whom it selects now, in the same transaction, which holds the selectors'
-- lock.  Of two that wake it at once the second waits for the row, and then finds a lane.
UPDATE selectors
   SET agents = NULL, idle_since = NULL, generator_id = :generator_id
 WHERE digest = :digest
   AND work_type = :work_type
   AND excluded = :excluded::uuid[]
   AND agents IS NOT NULL
RETURNING id
