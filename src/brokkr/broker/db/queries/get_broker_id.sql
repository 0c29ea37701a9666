-- Which database this is.
SELECT id FROM broker_instance
