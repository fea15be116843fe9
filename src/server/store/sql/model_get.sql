SELECT m.id, m.name, m.metadata, m.state, m.digest, m.created_at, m.committed_at, s.summary,
    p.source AS pull_source, p.revision AS pull_revision, p.state AS pull_state, p.files AS pull_files, p.files_done AS pull_files_done,
    p.bytes AS pull_bytes, p.bytes_done AS pull_bytes_done, p.note AS pull_note, p.error_code AS pull_error_code,
    p.error_message AS pull_error_message
FROM model m LEFT JOIN model_summary s ON s.model_id = m.id LEFT JOIN model_pull p ON p.model_id = m.id
WHERE m.id = $1 AND m.tenant = $2
