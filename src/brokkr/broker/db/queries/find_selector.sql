-- The selector of a target that was seen before.
--
-- Locked, because a selector that nothing refers to may be deleted: who finds it here keeps
-- it until the Work that refers to it is committed.
SELECT id FROM selectors
 WHERE digest = :digest AND work_type = :work_type AND excluded = '{}'
   FOR KEY SHARE
