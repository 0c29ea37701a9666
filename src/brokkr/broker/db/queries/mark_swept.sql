-- Remember when stale claims were last looked for.
UPDATE broker_instance SET swept_at = now()
