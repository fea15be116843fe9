SELECT r.report FROM job_report r JOIN job j ON j.id = r.job_id WHERE r.job_id = $1 AND j.tenant = $2
