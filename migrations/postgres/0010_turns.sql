-- Whose turn it is. A job's turn is one more than that of the same tenant's last waiting job of the same priority, but not
-- less than the turn that is being served: however many jobs a tenant adds, the next job of another one comes next.
ALTER TABLE job ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
DROP INDEX job_ready;
CREATE INDEX job_ready ON job (priority DESC, turn, id) WHERE state = 'queued';
CREATE INDEX job_turn ON job (tenant, priority, turn) WHERE state = 'queued';
CREATE INDEX job_served ON job (priority, turn) WHERE state = 'running';
