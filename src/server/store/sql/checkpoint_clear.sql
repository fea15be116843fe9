DELETE FROM job_checkpoint WHERE job_id = $1
