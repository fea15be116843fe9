INSERT INTO model_file (model_id, name, digest, bytes)
SELECT $1, value ->> 'name', value ->> 'digest', value ->> 'bytes' FROM json_each($2)
