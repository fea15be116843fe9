SELECT plan FROM job_body WHERE job_id = $1
