-- Keep what is left of a generator's bucket; its row is locked.
UPDATE generators
   SET tokens = :tokens, tokens_at = :tokens_at
 WHERE id = :id
