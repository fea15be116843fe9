INSERT INTO model_pull (model_id, source, include, token, revision, state, fence, failures, due_at, lease_until, files,
        files_done, bytes, bytes_done, note, error_code, error_message, finished_at) VALUES
    ('mdl_01939a6b2b3c7d0e8f00000000000002', '{"hub":"a/b"}', '[]', NULL, 'main', 'active', 1, 0, 1750000009000, NULL, 1, 0, 10,
        4, NULL, NULL, NULL, NULL);
INSERT INTO model_pull_file (model_id, name, origin, bytes, sha256, upload_id) VALUES
    ('mdl_01939a6b2b3c7d0e8f00000000000002', 'config.json', 'https://example.com/config.json', 10, NULL,
        'upl_01939a6b2b3c7d0e8f00000000000004');
