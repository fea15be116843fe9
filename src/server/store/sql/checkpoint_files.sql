SELECT name, digest, bytes, fence FROM job_checkpoint WHERE job_id = $1 ORDER BY name
