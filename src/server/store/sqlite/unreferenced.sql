SELECT d.value AS digest FROM json_each($1) AS d
WHERE NOT EXISTS (SELECT 1 FROM model_file f WHERE f.digest = d.value)
  AND NOT EXISTS (SELECT 1 FROM dataset_file f WHERE f.digest = d.value)
  AND NOT EXISTS (SELECT 1 FROM artifact_file f WHERE f.digest = d.value)
  AND NOT EXISTS (SELECT 1 FROM upload u WHERE u.digest = d.value)
  AND NOT EXISTS (SELECT 1 FROM pending_blob p WHERE p.digest = d.value)
  AND NOT EXISTS (SELECT 1 FROM job_checkpoint c WHERE c.digest = d.value)
