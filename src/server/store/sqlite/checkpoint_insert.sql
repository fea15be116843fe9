INSERT INTO job_checkpoint (job_id, name, fence, digest, bytes)
SELECT $1, value ->> 'name', $2, value ->> 'digest', value ->> 'bytes' FROM json_each($3)
