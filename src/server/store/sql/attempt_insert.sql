INSERT INTO job_attempt (job_id, fence, attempt, worker, started_at, need_memory_bytes) VALUES ($1, $2, $3, $4, $5, $6)
