DELETE FROM pending_blob WHERE job_id = $1
