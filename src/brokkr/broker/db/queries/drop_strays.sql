-- Delete members of the next few selectors that rest, by id: a broker of an earlier version puts
-- agents into every selector that selects them.
--
-- Each is locked, so that who wakes it meanwhile comes before and is seen, or waits and then
-- stores its members.
WITH slice AS (
    SELECT id
      FROM selectors
     WHERE agents IS NOT NULL AND id > :after
     ORDER BY id
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM agent_selectors AS member USING slice WHERE member.selector_id = slice.id
    RETURNING member.agent_id
)
SELECT (SELECT max(id) FROM slice) AS last, (SELECT count(*) FROM gone) AS gone
