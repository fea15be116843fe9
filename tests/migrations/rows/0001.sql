INSERT INTO model (id, name, metadata, state, digest, created_at, committed_at) VALUES
    ('mdl_01939a6b2b3c7d0e8f00000000000001', 'tiny', '{"team":"blue"}', 'ready', 'd1', 1750000000000, 1750000001000),
    ('mdl_01939a6b2b3c7d0e8f00000000000002', NULL, '{}', 'draft', NULL, 1750000000000, NULL);
INSERT INTO model_file (model_id, name, digest, bytes) VALUES
    ('mdl_01939a6b2b3c7d0e8f00000000000001', 'model.safetensors', 'aa', 10),
    ('mdl_01939a6b2b3c7d0e8f00000000000002', 'config.json', 'ab', 2);
INSERT INTO model_summary (model_id, summary) VALUES ('mdl_01939a6b2b3c7d0e8f00000000000001', '{"format":"safetensors"}');
INSERT INTO model_tensor (model_id, position, name, dtype, shape, bytes) VALUES
    ('mdl_01939a6b2b3c7d0e8f00000000000001', 0, 'a.weight', 'F32', '[2,4]', 32);
INSERT INTO upload (id, length, digest, bytes, created_at, expires_at) VALUES
    ('upl_01939a6b2b3c7d0e8f00000000000003', 10, 'ac', 10, 1750000000000, 4000000000000),
    ('upl_01939a6b2b3c7d0e8f00000000000004', NULL, NULL, NULL, 1750000000000, 4000000000000);
INSERT INTO job (id, model_id, state, priority, run_after, attempt, max_attempts, fence, lease_until, worker,
        need_memory_bytes, techniques, dedupe_key, cancel_requested_at, cancel_reason, error_code, error_message, stage,
        stage_index, stages, bytes_done, bytes_total, bytes_per_second, peak_memory_bytes, event_seq, metadata,
        traceparent, created_at, started_at, finished_at) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000005', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'queued', 5, 0, 0, 3, 0, NULL, NULL,
        100, '["rtn"]', 'same', NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 1, '{}', NULL, 1750000002000, NULL, NULL),
    ('job_01939a6b2b3c7d0e8f00000000000006', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'running', 0, 0, 1, 3, 1,
        1750000100000, 'worker-a', 100, '["ggml"]', NULL, 1750000003000, 'changed my mind', NULL, NULL, 'compress', 0, 2,
        5, 10, 1.5, 7, 2, '{}', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 1750000002000, 1750000002500,
        NULL),
    ('job_01939a6b2b3c7d0e8f00000000000007', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'succeeded', 0, 0, 1, 3, 1, NULL,
        NULL, 100, '["ggml"]', 'same', NULL, NULL, NULL, NULL, 'verify', 1, 2, 10, 10, 2.5, 9, 3, '{"a":"b"}', NULL,
        1750000002000, 1750000002500, 1750000009000),
    ('job_01939a6b2b3c7d0e8f00000000000008', 'mdl_01939a6b2b3c7d0e8f00000000000001', 'failed', 0, 0, 1, 3, 1, NULL, NULL,
        100, '[]', NULL, NULL, NULL, 'io', 'the disk failed', NULL, 0, 0, 0, 0, 0, 0, 1, '{}', NULL, 1750000002000,
        1750000002500, 1750000009000);
INSERT INTO job_body (job_id, recipe, plan) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000005', '"W8A16"', '{"z":1,"a":2}'),
    ('job_01939a6b2b3c7d0e8f00000000000006', '"Q4_K_M"', '{"version":1}'),
    ('job_01939a6b2b3c7d0e8f00000000000007', '"Q4_K_M"', '{"version":1}'),
    ('job_01939a6b2b3c7d0e8f00000000000008', '"Q4_K_M"', '{"version":1}');
INSERT INTO job_attempt (job_id, fence, attempt, worker, started_at, ended_at, outcome, error_code, error_message,
        need_memory_bytes, peak_memory_bytes) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000006', 1, 1, 'worker-a', 1750000002500, NULL, NULL, NULL, NULL, 100, NULL),
    ('job_01939a6b2b3c7d0e8f00000000000007', 1, 1, 'worker-a', 1750000002500, 1750000009000, 'succeeded', NULL, NULL, 100, 9),
    ('job_01939a6b2b3c7d0e8f00000000000008', 1, 1, 'worker-a', 1750000002500, 1750000009000, 'failed', 'io', 'the disk failed',
        100, 9);
INSERT INTO job_event (job_id, seq, kind, level, message, data, created_at) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000005', 1, 'state', 'info', 'job is queued', '{}', 1750000002000),
    ('job_01939a6b2b3c7d0e8f00000000000006', 1, 'state', 'info', 'job is queued', '{}', 1750000002000),
    ('job_01939a6b2b3c7d0e8f00000000000006', 2, 'state', 'info', 'job is running', '{"attempt":1}', 1750000002500),
    ('job_01939a6b2b3c7d0e8f00000000000007', 1, 'message', 'warning', 'a line', '{}', 1750000002500);
INSERT INTO job_report (job_id, report) VALUES ('job_01939a6b2b3c7d0e8f00000000000007', '{"z":1,"ratio":3.5}');
INSERT INTO artifact (id, job_id, model_id, format, digest, created_at) VALUES
    ('art_01939a6b2b3c7d0e8f00000000000009', 'job_01939a6b2b3c7d0e8f00000000000007',
        'mdl_01939a6b2b3c7d0e8f00000000000001', 'gguf', 'd2', 1750000009000);
INSERT INTO artifact_file (artifact_id, name, digest, bytes) VALUES
    ('art_01939a6b2b3c7d0e8f00000000000009', 'model.gguf', 'ad', 5);
INSERT INTO pending_blob (job_id, fence, digest) VALUES ('job_01939a6b2b3c7d0e8f00000000000006', 1, 'ae');
INSERT INTO idempotency (idempotency_key, fingerprint, job_id, expires_at) VALUES
    ('once', 'f1', 'job_01939a6b2b3c7d0e8f00000000000005', 4000000000000);
