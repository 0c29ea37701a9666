-- Delete those of some selectors that are unused.
--
-- The caller has locked them in a statement before this one, and holds the selectors' lock: a
-- Work that was committed until then is seen here, and no other can come.  A Work that moves
-- between queue and log is always in one of them.
WITH unused AS (
    SELECT id FROM unused_selectors WHERE id = ANY (:ids::bigint[])
), members AS (
    DELETE FROM agent_selectors AS member USING unused WHERE member.selector_id = unused.id
), deleted AS (
    DELETE FROM selectors AS selector USING unused WHERE selector.id = unused.id
    RETURNING selector.id
)
SELECT count(*) FROM deleted
