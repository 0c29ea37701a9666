-- What time it is, for everyone.
SELECT clock_timestamp()
