-- Where a tenant's running jobs are counted, claims go one by one: two at once would each count without the other.
SELECT 1 AS one FROM (SELECT pg_advisory_xact_lock(7308332046)) AS turn
