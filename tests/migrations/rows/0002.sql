INSERT INTO dataset (id, name, metadata, digest, summary, created_at) VALUES
    ('ds_01939a6b2b3c7d0e8f0000000000000a', 'tickets', '{}', 'd3', '{"kind":"txt"}', 1750000000000);
INSERT INTO dataset_file (dataset_id, name, digest, bytes) VALUES ('ds_01939a6b2b3c7d0e8f0000000000000a', 'a.txt', 'af', 3);
INSERT INTO job_dataset (job_id, dataset_id) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000005', 'ds_01939a6b2b3c7d0e8f0000000000000a');
