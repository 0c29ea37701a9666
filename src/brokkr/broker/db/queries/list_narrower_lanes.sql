-- The next lanes of what some agents have tried in which Work waits, by id.
SELECT narrow.id
  FROM selectors AS narrow
 WHERE narrow.id > :after
   AND narrow.excluded <> '{}'
   AND (SELECT true FROM work_queue AS work
         WHERE work.selector_id = narrow.id AND work.status = 'PENDING' AND work.is_due
         LIMIT 1) IS NOT NULL
 ORDER BY narrow.id
 LIMIT :limit
