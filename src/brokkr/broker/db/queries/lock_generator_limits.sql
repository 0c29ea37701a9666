-- What a generator with limits may still submit; one without limits is not locked, or found.
--
-- Who submits for it at the same moment waits here, and then sees what the first one took.
-- That one may have begun later, so the time between the two is never less than nothing.
SELECT name, max_pending, max_submissions_per_minute,
       least(max_submissions_per_minute,
             tokens + max_submissions_per_minute / 60.0
                    * greatest(0, extract(epoch FROM now() - tokens_at)))::float AS tokens
  FROM generators
 WHERE id = :id
   AND num_nonnulls(max_pending, max_submissions_per_minute) > 0
   FOR NO KEY UPDATE
