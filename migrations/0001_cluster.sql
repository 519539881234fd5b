-- Which cluster this database is a shard of, and the cluster's topology.
--
-- `cluster` has one row. On the shard whose name sorts first it is written in state 'initialising' together
-- with the first topology before any other shard is touched, and becomes 'ready' when all are done: a first
-- start that is killed half-way is finished by the next one, and only by following that record.

CREATE TABLE cluster (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id     uuid        NOT NULL,
    shard          text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('initialising', 'ready')),
    initialised_at timestamptz NOT NULL DEFAULT now()
);

-- Every published topology; the highest version on any shard counts. The document never holds a password.
CREATE TABLE topology (
    version      bigint PRIMARY KEY CHECK (version > 0),
    document     text        NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION topology_news() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('snapurl_topology', NEW.version::text);
    RETURN NULL;
END $$;

CREATE TRIGGER topology_news AFTER INSERT ON topology FOR EACH ROW EXECUTE FUNCTION topology_news();
