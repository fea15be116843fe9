INSERT INTO model_tensor (model_id, position, name, dtype, shape, bytes)
SELECT $1, t.place - 1, t.value ->> 'name', t.value ->> 'dtype', t.value ->> 'shape', CAST(t.value ->> 'bytes' AS bigint)
FROM json_array_elements(CAST($2 AS json)) WITH ORDINALITY AS t (value, place)
