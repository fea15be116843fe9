INSERT INTO job_body (job_id, recipe, plan) VALUES ($1, $2, $3)
