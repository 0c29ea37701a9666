-- Tell the other brokers; with nothing to tell, it asks whether the connection lives.
--
-- In a transaction of its own: the commits of all that notify wait for each other.
SELECT pg_notify(:channel::text, payload) FROM unnest(:payloads::text[]) AS payload
