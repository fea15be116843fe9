INSERT INTO model_tensor (model_id, position, name, dtype, shape, bytes)
SELECT $1, key, value ->> 'name', value ->> 'dtype', value -> 'shape', value ->> 'bytes' FROM json_each($2)
