INSERT INTO dataset_file (dataset_id, name, digest, bytes)
SELECT $1, f.name, f.digest, f.bytes
FROM jsonb_to_recordset(CAST($2 AS jsonb)) AS f (name text, digest text, bytes bigint)
