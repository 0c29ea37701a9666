-- How many Works of a generator are pending, counted no further than matters.
SELECT count(*)
  FROM (SELECT FROM work_queue
         WHERE generator_id = :generator_id AND status = 'PENDING'
         LIMIT :enough) AS pending
