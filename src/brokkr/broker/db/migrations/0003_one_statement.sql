-- A claim request is answered by one statement, so no lock that was taken before it keeps two
-- transactions from answering the same request: this does.  `place` is a claim's among those
-- of its request.
ALTER TABLE work_claims ADD COLUMN place smallint;
DROP INDEX work_claims_by_request;
CREATE UNIQUE INDEX one_answer_each_request ON work_claims (agent_id, request_id, place)
    WHERE request_id IS NOT NULL;
