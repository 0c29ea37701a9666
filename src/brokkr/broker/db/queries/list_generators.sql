-- Living generators by name, with how much each has pending, up to 100 000.
WITH page AS (
    SELECT * FROM generators
     WHERE deleted_at IS NULL
       AND (:after::text IS NULL OR name > :after::text)
     ORDER BY name
     LIMIT :limit
)
SELECT page.*, queued.pending
  FROM page
 CROSS JOIN LATERAL (
       SELECT count(*) AS pending
         FROM (SELECT FROM work_queue AS work
                WHERE work.status = 'PENDING' AND work.generator_id = page.id
                LIMIT 100000) AS counted
       ) AS queued
 ORDER BY page.name
