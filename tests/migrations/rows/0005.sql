INSERT INTO audit (id, tenant, key_id, action, object, request_id, client, created_at) VALUES
    ('aud_01939a6b2b3c7d0e8f0000000000000d', 'team-a', 'key_01939a6b2b3c7d0e8f0000000000000b', 'createModel',
        'mdl_01939a6b2b3c7d0e8f0000000000000c', 'r1', '127.0.0.1', 1750000000000);
