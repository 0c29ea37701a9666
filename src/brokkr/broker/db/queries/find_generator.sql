-- One living generator, by id or name, with how much it has pending, up to 100 000.
SELECT generator.*,
       (SELECT count(*)
          FROM (SELECT FROM work_queue AS work
                 WHERE work.status = 'PENDING' AND work.generator_id = generator.id
                 LIMIT 100000) AS queued) AS pending
  FROM generators AS generator
 WHERE (generator.id = :id OR generator.name = :name)
   AND generator.deleted_at IS NULL
