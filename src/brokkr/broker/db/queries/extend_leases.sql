-- Give leases the time back in which nobody could renew them.
--
-- Nobody swept for much longer than the usual interval: broker or database were away, so
-- heartbeats had nowhere to go.  Each lease gets as much time as it had when that began; one
-- that was renewed since gets no more than a whole one.  Rows are locked in the order of ids,
-- as by heartbeats, which begin again at the same moment.
WITH held AS (
    SELECT work.id, now() - instance.swept_at AS pause
      FROM broker_instance AS instance
     CROSS JOIN work_queue AS work
     WHERE instance.swept_at < now() - make_interval(secs => :longest_pause_seconds)
       AND work.status = 'CLAIMED'
     ORDER BY work.id
       FOR UPDATE OF work
)
UPDATE work_queue AS work
   SET lease_expires_at = least(
           work.lease_expires_at + held.pause,
           now() + make_interval(secs => work.claim_timeout_seconds))
  FROM held
 WHERE work.id = held.id
