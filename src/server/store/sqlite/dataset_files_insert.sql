INSERT INTO dataset_file (dataset_id, name, digest, bytes)
SELECT $1, value ->> 'name', value ->> 'digest', value ->> 'bytes' FROM json_each($2)
