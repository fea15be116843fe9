INSERT INTO job_checkpoint (job_id, name, fence, digest, bytes) VALUES
    ('job_01939a6b2b3c7d0e8f00000000000006', 'block-0', 1, 'ba', 7);
