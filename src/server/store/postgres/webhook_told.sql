-- Who hears of a job. The lock makes a delete wait until the messages are written.
SELECT w.id, w.topics, j.model_id FROM webhook w JOIN job j ON j.tenant = w.tenant
WHERE j.id = $1 AND w.disabled_at IS NULL
ORDER BY w.id
FOR KEY SHARE OF w
