-- Give leases the time back in which nobody could renew them.
--
-- Nobody swept for much longer than the usual interval: broker or database were away, so
-- heartbeats had nowhere to go.  Each lease gets as much time as it had when that began.
UPDATE work_queue AS work
   SET lease_expires_at = work.lease_expires_at + (now() - instance.swept_at)
  FROM broker_instance AS instance
 WHERE instance.swept_at < now() - make_interval(secs => :longest_pause_seconds)
   AND work.status = 'CLAIMED'
