INSERT INTO job_event (job_id, seq, kind, level, message, data, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
