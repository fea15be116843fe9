-- Where messages go, and the messages: written in the transaction of the change they tell of.
-- A secret is kept as it is, because every message is signed with it. Topics are words, separated by blanks; none is all.
-- due_at and lease_until are by the database's clock, the other times by the server's.
CREATE TABLE webhook (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    url TEXT NOT NULL,
    description TEXT,
    topics TEXT NOT NULL,
    secret TEXT NOT NULL,
    old_secret TEXT,
    old_secret_until INTEGER,
    disabled_at INTEGER,
    disabled_reason TEXT,
    last_success_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT webhook_old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT webhook_disabled_has_reason CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) STRICT;
CREATE INDEX webhook_by_tenant ON webhook (tenant, id);

CREATE TABLE webhook_delivery (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    topic TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'succeeded', 'failed')),
    fence INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    tries_before INTEGER NOT NULL,
    begun_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    CONSTRAINT webhook_delivery_over_has_end CHECK ((state = 'pending') = (finished_at IS NULL))
) STRICT;
CREATE INDEX webhook_delivery_due ON webhook_delivery (due_at, id) WHERE state = 'pending';
CREATE INDEX webhook_delivery_by_webhook ON webhook_delivery (webhook_id, id);
CREATE INDEX webhook_delivery_busy ON webhook_delivery (webhook_id, lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX webhook_delivery_over ON webhook_delivery (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE webhook_try (
    delivery_id TEXT NOT NULL REFERENCES webhook_delivery (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status INTEGER,
    response TEXT,
    error TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;
