-- As much of the living agents as a target looks at: of all, or of those it may name.
SELECT id, name, labels, annotations
  FROM agents
 WHERE deleted_at IS NULL
   AND (name = ANY (:names?::text[]) OR id = ANY (:ids?::uuid[]))
