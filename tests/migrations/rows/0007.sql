INSERT INTO webhook (id, tenant, url, description, topics, secret, old_secret, old_secret_until, disabled_at,
        disabled_reason, last_success_at, created_at, updated_at) VALUES
    ('wh_01939a6b2b3c7d0e8f0000000000000e', 'default', 'https://example.com/hook', NULL, 'job.succeeded', 'whsec_MQ==',
        'whsec_Mg==', 1750000009000, NULL, NULL, 1750000009000, 1750000000000, 1750000000000);
INSERT INTO webhook_delivery (id, webhook_id, topic, body, state, fence, tries, tries_before, begun_at, due_at,
        lease_until, created_at, finished_at) VALUES
    ('msg_01939a6b2b3c7d0e8f0000000000000f', 'wh_01939a6b2b3c7d0e8f0000000000000e', 'job.succeeded', '{}', 'succeeded', 1, 1,
        0, 1750000009000, 1750000009000, NULL, 1750000009000, 1750000009500),
    ('msg_01939a6b2b3c7d0e8f00000000000010', 'wh_01939a6b2b3c7d0e8f0000000000000e', 'job.failed', '{}', 'pending', 2, 1, 0,
        1750000009000, 1750000019000, NULL, 1750000009000, NULL);
INSERT INTO webhook_try (delivery_id, number, started_at, duration_ms, status, response, error) VALUES
    ('msg_01939a6b2b3c7d0e8f0000000000000f', 1, 1750000009000, 12, 200, 'ok', NULL),
    ('msg_01939a6b2b3c7d0e8f00000000000010', 1, 1750000009000, 30, NULL, NULL, 'timeout');
