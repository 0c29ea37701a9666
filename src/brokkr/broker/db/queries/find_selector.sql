-- The lane of a target that was used lately.
--
-- Locked, because a lane in which nothing is queued comes to rest: who finds it here keeps it
-- until the Work that refers to it is committed.
SELECT id FROM selectors
 WHERE digest = :digest AND work_type = :work_type AND excluded = '{}' AND agents IS NULL
   FOR KEY SHARE
