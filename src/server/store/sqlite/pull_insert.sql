INSERT INTO model_pull (model_id, source, include, token, state, fence, failures, due_at, files, files_done, bytes, bytes_done)
VALUES ($1, $2, $3, $4, 'active', 0, 0, CAST(unixepoch('subsec') * 1000 AS INTEGER), 0, 0, 0, 0)
