INSERT INTO model_summary (model_id, summary) VALUES ($1, $2)
