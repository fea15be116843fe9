-- Models that were never committed are looked for by age.
CREATE INDEX model_draft ON model (created_at) WHERE state = 'draft';
