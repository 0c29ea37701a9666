-- The whole target of a finished Work, if it rests.
SELECT whole.digest, whole.work_type, whole.targets
  FROM work_execution_log AS log
  JOIN selectors AS mine ON mine.id = log.selector_id
  JOIN selectors AS whole
    ON whole.digest = mine.digest
   AND whole.work_type = mine.work_type
   AND whole.excluded = '{}'
 WHERE log.id = :work_id
   AND log.crd_spec IS NOT NULL
   AND whole.agents IS NOT NULL
