SELECT report FROM job_report WHERE job_id = $1
