-- Change an agent's labels and annotations; the caller holds the selectors' lock.
UPDATE agents SET labels = :labels, annotations = :annotations WHERE id = :id
