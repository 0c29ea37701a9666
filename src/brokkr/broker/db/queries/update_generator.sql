-- Set the limits of a generator; its row is locked.
UPDATE generators
   SET max_pending = :max_pending,
       max_submissions_per_minute = :max_submissions_per_minute
 WHERE id = :id
