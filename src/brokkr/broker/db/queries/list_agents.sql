-- Living agents by name, with how much each holds.
WITH page AS (
    SELECT * FROM agents
     WHERE deleted_at IS NULL
       AND (:after::text IS NULL OR name > :after::text)
     ORDER BY name
     LIMIT :limit
)
SELECT page.*, held.claimed
  FROM page
 CROSS JOIN LATERAL (
       SELECT count(*) AS claimed FROM work_queue AS work
        WHERE work.status = 'CLAIMED' AND work.claimed_by = page.id
       ) AS held
 ORDER BY page.name
