-- What a generator with limits may still submit; one without limits is not locked, or found.
--
-- Who submits for it at the same moment waits here, and then sees what the first one took.  The
-- clock is read under the lock, so what was stored is never later, unless the clock was set
-- back: then nobody knows how much time has passed, and the bucket is full.
SELECT name, max_pending, max_submissions_per_minute, clock_timestamp() AS tokens_at,
       CASE WHEN tokens_at > clock_timestamp() THEN max_submissions_per_minute
            ELSE least(max_submissions_per_minute,
                       tokens + max_submissions_per_minute / 60.0
                              * extract(epoch FROM clock_timestamp() - tokens_at))
            END::float AS tokens
  FROM generators
 WHERE id = :id
   AND num_nonnulls(max_pending, max_submissions_per_minute) > 0
   FOR NO KEY UPDATE
