-- The lane for Works of a selector that these agents have tried; locked, as in find_selector.
SELECT narrow.id
  FROM selectors AS narrow
  JOIN selectors AS mine
    ON mine.digest = narrow.digest
   AND mine.work_type = narrow.work_type
 WHERE mine.id = (SELECT selector_id FROM work_queue WHERE id = :work_id)
   AND narrow.excluded = :excluded::uuid[]
   AND narrow.agents IS NULL
   FOR KEY SHARE OF narrow
