INSERT INTO search (id, tenant, model_id, asked, points, metadata, idempotency_key, fingerprint, created_at, cancelled_at) VALUES
    ('srch_01939a6b2b3c7d0e8f00000000000001', 'default', 'mdl_01939a6b2b3c7d0e8f00000000000001', '{"recipes":["Q8_0"]}',
        '[{"name":"Q8_0","recipe":{"preset":"Q8_0"},"job":"job_01939a6b2b3c7d0e8f00000000000001","refusal":null}]', '{}',
        'default:once', 'ab', 1750000009000, NULL);
