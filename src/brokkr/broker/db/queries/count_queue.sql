-- How much is queued, by type, generator and status.
--
-- What is pending is counted in an index that is a hundredth of the table; what is claimed is
-- never much.
WITH counted AS (
    SELECT work_type, generator_id, 'PENDING' AS status, count(*) AS works
      FROM work_queue
     WHERE status = 'PENDING'
     GROUP BY work_type, generator_id
    UNION ALL
    SELECT work_type, generator_id, 'CLAIMED', count(*)
      FROM work_queue
     WHERE status = 'CLAIMED'
     GROUP BY work_type, generator_id
)
SELECT counted.work_type, coalesce(generator.name, '') AS generator, counted.status,
       sum(counted.works)::bigint AS works
  FROM counted
  LEFT JOIN generators AS generator ON generator.id = counted.generator_id
 GROUP BY 1, 2, 3
