INSERT INTO api_key (id, tenant, name, scopes, secret_digest, created_at, expires_at, last_used_at, revoked_at) VALUES
    ('key_01939a6b2b3c7d0e8f0000000000000b', 'team-a', 'ci', 'models:write jobs:write', 'd4', 1750000000000, NULL, NULL, NULL);
INSERT INTO model (id, name, metadata, state, digest, created_at, committed_at, tenant) VALUES
    ('mdl_01939a6b2b3c7d0e8f0000000000000c', 'theirs', '{}', 'draft', NULL, 1750000000000, NULL, 'team-a');
