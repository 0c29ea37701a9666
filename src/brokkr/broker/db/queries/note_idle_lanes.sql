-- Note of the next few lanes, by id, since when nothing is queued in them, and return those in
-- which nothing has been for so long that they may rest.
--
-- Notes are hints: whether a lane is idle is decided in rest_lanes.sql, under its lock.
WITH slice AS (
    SELECT lane.id, lane.idle_since,
           (SELECT true FROM idle_lanes AS idle WHERE idle.id = lane.id) IS NOT NULL AS is_idle
      FROM (SELECT id, idle_since
              FROM selectors
             WHERE agents IS NULL AND id > :after
             ORDER BY id
             LIMIT :limit) AS lane
), noted AS (
    UPDATE selectors AS selector
       SET idle_since = CASE WHEN slice.is_idle THEN now() END
      FROM slice
     WHERE selector.id = slice.id
       AND slice.is_idle <> (slice.idle_since IS NOT NULL)
)
SELECT id, is_idle AND coalesce(idle_since <= now() - :age::interval, :age::interval <= '0')
           AS may_rest
  FROM slice
 ORDER BY id
