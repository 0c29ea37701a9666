-- Who holds the lock of migrations: its process at the server, and where it is connected from.
SELECT lock.pid,
       concat_ws(' ', activity.application_name,
                 'at ' || coalesce(host(activity.client_addr), 'this machine'),
                 'since ' || activity.backend_start::timestamptz(0)) AS holder
  FROM pg_locks AS lock
  JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
 WHERE lock.locktype = 'advisory' AND lock.classid = 4 AND lock.objid = 0 AND lock.granted
   AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
