SELECT id FROM job WHERE id IN (SELECT value FROM json_each($1)) AND state IN ('queued', 'running')
